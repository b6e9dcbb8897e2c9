"""Another backbone in one file: inverted residuals with attention in the deep stages (EMOv2-like).

    train_net.py --import examples/papers/emo_backbone.py --config-file YOUR.yaml \
        MODEL.BACKBONE.NAME build_retinanet_emo_fpn_backbone MODEL.WEIGHTS ""

In the spirit of Zhang et al., EMOv2, 2024: one block, "inverted residual mobile block": expand, mix
by attention, mix by a depthwise convolution, project. Theirs attends within windows as well.
"""

from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from torch import nn
from torch.nn import functional as F

from retina_plugin.registry import BACKBONES


class Block(nn.Module):
    def __init__(self, before, after, stride, heads, expand=4):
        super().__init__()
        wide, self.heads, self.same = before * expand, heads, stride == 1 and before == after
        self.norm = nn.GroupNorm(1, before)
        self.keys = nn.Conv2d(before, 2 * before, 1) if heads else None
        self.expand, self.project = nn.Conv2d(before, wide, 1), nn.Conv2d(wide, after, 1)
        self.depthwise = nn.Conv2d(wide, wide, 3, stride, 1, groups=wide)

    def forward(self, x):
        normed = self.norm(x)
        wide = self.expand(normed)
        if self.heads:
            parts = (*self.keys(normed).chunk(2, dim=1), wide)
            split = [y.unflatten(1, (self.heads, -1)).flatten(3).transpose(2, 3) for y in parts]
            mixed = F.scaled_dot_product_attention(*split)
            wide = wide + mixed.transpose(2, 3).flatten(1, 2).view_as(wide)
        out = self.project(F.silu(self.depthwise(F.silu(wide))))
        return x + out if self.same else out


class EMO(Backbone):
    def __init__(self, width, depths):
        super().__init__()
        self.stem, before = nn.Conv2d(3, width, 3, 2, 1), width
        for stage, depth in enumerate(depths, 2):
            after, heads = width * 2 ** (stage - 2), 4 if stage > 3 else 0
            blocks = [
                Block(before if i == 0 else after, after, 2 if i == 0 else 1, heads)
                for i in range(depth)
            ]
            before = after
            self.add_module(f"res{stage}", nn.Sequential(*blocks))
        self._shapes = {
            f"res{s}": ShapeSpec(channels=width * 2 ** (s - 2), stride=2**s) for s in (3, 4, 5)
        }

    def output_shape(self):
        return self._shapes

    def forward(self, x):
        x, outputs = self.stem(x), {}
        for name in ("res2", "res3", "res4", "res5"):
            outputs[name] = x = getattr(self, name)(x)
        return {name: outputs[name] for name in self._shapes}


@BACKBONES.register(defaults={"WIDTH": 32, "DEPTHS": (2, 2, 4, 2)}, node="EMO")
def build_retinanet_emo_fpn_backbone(cfg, input_shape):
    """EMO and an FPN.

    Settings:
        width: number of channels of the first stage; every further stage has twice as many.
        depths: number of blocks of each of the four stages.
    """
    settings = BACKBONES.settings(cfg, "build_retinanet_emo_fpn_backbone")
    body, channels = EMO(settings["WIDTH"], settings["DEPTHS"]), cfg.MODEL.FPN.OUT_CHANNELS
    top = LastLevelP6P7(body.output_shape()["res5"].channels, channels, "res5")
    return FPN(
        bottom_up=body, in_features=["res3", "res4", "res5"], out_channels=channels, top_block=top
    )
