"""Configs of detectors small enough to build one per test."""

from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from support.stock_configs import stock_config
from torch import nn

from retina_plugin import add_retina_config

CHANNELS = 64  # two for each of GroupNorm's 32 groups


class TinyBottomUp(Backbone):
    """Three convolutions of strides 8, 2 and 2."""

    def __init__(self, channels=3):
        super().__init__()
        self.res3 = nn.Conv2d(channels, 16, 8, stride=8)
        self.res4 = nn.Conv2d(16, 16, 3, stride=2, padding=1)
        self.res5 = nn.Conv2d(16, 16, 3, stride=2, padding=1)

    def output_shape(self):
        strides = {"res3": 8, "res4": 16, "res5": 32}
        return {name: ShapeSpec(channels=16, stride=stride) for name, stride in strides.items()}

    def forward(self, x):
        res3 = self.res3(x)
        res4 = self.res4(res3.relu())
        return {"res3": res3, "res4": res4, "res5": self.res5(res4.relu())}


@BACKBONE_REGISTRY.register()
def build_tiny_fpn_backbone(cfg, input_shape):
    return FPN(
        bottom_up=TinyBottomUp(input_shape.channels),
        in_features=["res3", "res4", "res5"],
        out_channels=CHANNELS,
        top_block=LastLevelP6P7(16, CHANNELS, in_feature="res5"),
    )


def tiny_cfg(**retinanet) -> CfgNode:
    """Detectron2's RetinaNet on the tiny backbone, 7 classes, nine anchors from 16 to 256 pixels.

    Args:
        retinanet: keys of ``MODEL.RETINANET``.
    """
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    cfg.MODEL.BACKBONE.NAME = "build_tiny_fpn_backbone"
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [
        [base * 2 ** (i / 3) for i in range(3)] for base in (16, 32, 64, 128, 256)
    ]
    cfg.MODEL.RETINANET.NUM_CLASSES = 7
    cfg.MODEL.RETINANET.NUM_CONVS = 2
    for key, value in retinanet.items():
        assert key in cfg.MODEL.RETINANET, key
        cfg.MODEL.RETINANET[key] = value
    return cfg


def tiny_focal_cfg(extended: bool = True, **retinanet) -> CfgNode:
    """:func:`tiny_cfg` for our detector, with the plugin's keys unless not ``extended``."""
    cfg = tiny_cfg(**retinanet)
    cfg.MODEL.META_ARCHITECTURE = "FocalRetinaNet"
    return add_retina_config(cfg) if extended else cfg


def zoo_cfg(depth: int) -> CfgNode:
    """The model zoo's RetinaNet of that depth, without its weights, on the CPU."""
    cfg = stock_config(f"COCO-Detection/retinanet_R_{depth}_FPN_{_SCHEDULE[depth]}.yaml")
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = ""
    return cfg


_SCHEDULE = {50: "1x", 101: "3x"}  # the zoo has no R101 1x


def resnet18_cfg(norm: str = "FrozenBN") -> CfgNode:
    """The zoo's RetinaNet on a ResNet-18 with 7 classes, for both detectors."""
    cfg = zoo_cfg(50)
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.RESNETS.NORM = norm
    cfg.MODEL.RETINANET.NUM_CLASSES = 7
    return cfg


def mobilenet_cfg() -> CfgNode:
    """Ours on a MobileNetV2 with frozen norms."""
    cfg = tiny_focal_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_mobilenet_v2_fpn_backbone"
    cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    return cfg
