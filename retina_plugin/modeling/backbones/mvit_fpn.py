"""Detectron2's multiscale vision transformer (MViTv2) under a neck."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import accumulate

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone, MViT
from torch import nn

from retina_plugin.modeling.backbones.named_by_stride import NamedByStride, stage_numbers
from retina_plugin.modeling.backbones.pixel_format import IMAGENET_RGB
from retina_plugin.modeling.backbones.pretrained_network import PretrainedNetwork
from retina_plugin.modeling.backbones.timm_layers import layers_of_timm
from retina_plugin.registry import BACKBONES, NECKS

# tiny. Small: DEPTHS 1, 2, 11, 2. Base: DEPTHS 2, 3, 16, 3 and DROP_PATH_RATE 0.4
DEFAULTS = {
    "EMBED_DIM": 96,
    "DEPTHS": (1, 2, 5, 2),
    "NUM_HEADS": 1,
    "WINDOW_SIZE": 56,
    "DROP_PATH_RATE": 0.2,
}


class MViTStages(NamedByStride, MViT, PretrainedNetwork):
    """``detectron2.modeling.MViT`` with outputs ``res2`` to ``res5``.

    Source: Li et al., MViTv2, 2022. Its norms are LayerNorms alone.

    Args:
        out_features: which of ``res2`` to ``res5`` (MViT's ``scale2`` to ``scale5``) to return.
        embed_dim: number of channels of ``res2``; every further stage has twice as many.
        depths: number of blocks of each of the four stages.
        num_heads: number of the first stage's attention heads; every further stage has twice as
            many.
        window_size: side of the first stage's attention windows, in cells; halves with every stage.
        drop_path_rate: rate of the last block's stochastic depth; falls linearly towards the image.
        freeze_at: freeze the patch embedding (1) and the stages up to ``res<freeze_at>``.
        in_channels: of an image.

    Raises:
        ValueError: a stage that there is not, or depths that are not four.
    """

    pixel_format = IMAGENET_RGB

    def __init__(
        self,
        *,
        out_features: Sequence[str] = ("res3", "res4", "res5"),
        embed_dim: int = DEFAULTS["EMBED_DIM"],
        depths: Sequence[int] = DEFAULTS["DEPTHS"],
        num_heads: int = DEFAULTS["NUM_HEADS"],
        window_size: int = DEFAULTS["WINDOW_SIZE"],
        drop_path_rate: float = DEFAULTS["DROP_PATH_RATE"],
        freeze_at: int = 0,
        in_channels: int = 3,
    ) -> None:
        if len(depths) != 4:
            raise ValueError(
                "MODEL.BACKBONE.MViT.DEPTHS needs a number for each of the four stages, got "
                f"{list(depths)}"
            )
        ends = list(accumulate(depths))
        with layers_of_timm():
            super().__init__(
                in_chans=in_channels,
                embed_dim=embed_dim,
                depth=ends[-1],
                num_heads=num_heads,
                last_block_indexes=tuple(end - 1 for end in ends),
                adaptive_window_size=window_size,
                drop_path_rate=drop_path_rate,
                norm_layer=partial(nn.LayerNorm, eps=1e-6),
                out_features=[f"scale{i + 2}" for i in stage_numbers(out_features, "MViT")],
            )
        frozen = [self.patch_embed, *self.blocks[: [0, 0, *ends][min(freeze_at, 5)]]]
        for module in frozen if freeze_at else ():
            module.requires_grad_(False)


@BACKBONES.register(defaults=DEFAULTS, node="MViT")
def build_retinanet_mvit_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """Detectron2's MViT and a neck (``MODEL.NECK``).

    The settings ``MODEL.BACKBONE.MViT`` are arguments of :class:`MViTStages`.
    """
    settings = BACKBONES.settings(cfg, "build_retinanet_mvit_fpn_backbone")
    bottom_up = MViTStages(
        out_features=cfg.MODEL.FPN.IN_FEATURES,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        in_channels=input_shape.channels,
        **{key.lower(): value for key, value in settings.items()},
    )
    return NECKS.build(cfg, bottom_up=bottom_up)
