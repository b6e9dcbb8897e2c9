"""Detectron2's Swin transformer under a neck."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone, SwinTransformer

from retina_plugin.modeling.backbones.named_by_stride import NamedByStride, stage_numbers
from retina_plugin.modeling.backbones.pixel_format import IMAGENET_RGB
from retina_plugin.modeling.backbones.pretrained_network import PretrainedNetwork
from retina_plugin.modeling.backbones.timm_layers import layers_of_timm
from retina_plugin.registry import BACKBONES, NECKS

# tiny. Small: DEPTHS 2, 2, 18, 2. Base: the same depths, EMBED_DIM 128, NUM_HEADS 4, 8, 16, 32
DEFAULTS = {
    "EMBED_DIM": 96,
    "DEPTHS": (2, 2, 6, 2),
    "NUM_HEADS": (3, 6, 12, 24),
    "WINDOW_SIZE": 7,
    "DROP_PATH_RATE": 0.2,
}


class SwinStages(NamedByStride, SwinTransformer, PretrainedNetwork):
    """``detectron2.modeling.SwinTransformer`` with outputs ``res2`` to ``res5``.

    Source: Liu et al., Swin Transformer, 2021. Its norms are LayerNorms alone.

    Args:
        out_features: which of ``res2`` to ``res5`` (Swin's ``p0`` to ``p3``) to return.
        embed_dim: number of channels of ``res2``; every further stage has twice as many.
        depths: number of blocks of each of the four stages.
        num_heads: number of each stage's attention heads; divides its channels.
        window_size: side of the attention's windows, in cells.
        drop_path_rate: rate of the last block's stochastic depth; falls linearly towards the image.
        freeze_at: freeze the patch embedding (1) and the stages up to ``res<freeze_at>``.
        in_channels: of an image.

    Raises:
        ValueError: a stage that there is not, or depths and heads that are not four or do not fit.
    """

    pixel_format = IMAGENET_RGB
    size_divisibility = 32  # the parent's property asks for an attribute of another spelling

    def __init__(
        self,
        *,
        out_features: Sequence[str] = ("res3", "res4", "res5"),
        embed_dim: int = DEFAULTS["EMBED_DIM"],
        depths: Sequence[int] = DEFAULTS["DEPTHS"],
        num_heads: Sequence[int] = DEFAULTS["NUM_HEADS"],
        window_size: int = DEFAULTS["WINDOW_SIZE"],
        drop_path_rate: float = DEFAULTS["DROP_PATH_RATE"],
        freeze_at: int = 0,
        in_channels: int = 3,
    ) -> None:
        _check(embed_dim, depths, num_heads)
        with layers_of_timm():
            super().__init__(
                in_chans=in_channels,
                embed_dim=embed_dim,
                depths=tuple(depths),
                num_heads=tuple(num_heads),
                window_size=window_size,
                drop_path_rate=drop_path_rate,
                out_indices=tuple(stage_numbers(out_features, "Swin")),
                frozen_stages=freeze_at or -1,  # 0 freezes the patch embedding
            )


def _check(embed_dim: int, depths: Sequence[int], num_heads: Sequence[int]) -> None:
    node = "MODEL.BACKBONE.Swin"
    if len(depths) != 4 or len(num_heads) != 4:
        raise ValueError(
            f"{node}.DEPTHS and NUM_HEADS need a number for each of the four stages, got "
            f"{list(depths)} and {list(num_heads)}"
        )
    for stage, heads in enumerate(num_heads):
        if embed_dim * 2**stage % heads:
            raise ValueError(
                f"{node}.NUM_HEADS: {heads} heads do not divide the {embed_dim * 2**stage} "
                f"channels of res{stage + 2} (EMBED_DIM is {embed_dim})"
            )


@BACKBONES.register(defaults=DEFAULTS, node="Swin")
def build_retinanet_swin_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """Detectron2's Swin and a neck (``MODEL.NECK``).

    The settings ``MODEL.BACKBONE.Swin`` are arguments of :class:`SwinStages`.
    """
    settings = BACKBONES.settings(cfg, "build_retinanet_swin_fpn_backbone")
    bottom_up = SwinStages(
        out_features=cfg.MODEL.FPN.IN_FEATURES,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        in_channels=input_shape.channels,
        **{key.lower(): value for key, value in settings.items()},
    )
    return NECKS.build(cfg, bottom_up=bottom_up)
