"""Detectron2's plain vision transformer under its simple feature pyramid, P3 to P7."""

from __future__ import annotations

import logging
from functools import partial

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone, SimpleFeaturePyramid, ViT
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from torch import nn

from retina_plugin.modeling.backbones.pixel_format import IMAGENET_RGB
from retina_plugin.modeling.backbones.pretrained_network import PretrainedNetwork
from retina_plugin.modeling.backbones.timm_layers import layers_of_timm
from retina_plugin.registry import BACKBONES, NECKS

# base. Tiny: EMBED_DIM 192, NUM_HEADS 3. Small: 384, 6. Large: 1024, 16, DEPTH 24
DEFAULTS = {
    "EMBED_DIM": 768,
    "DEPTH": 12,
    "NUM_HEADS": 12,
    "WINDOW_SIZE": 14,
    "GLOBAL_BLOCKS": 4,
    "DROP_PATH_RATE": 0.1,
    "IMG_SIZE": 1024,
    "PYRAMID_NORM": "LN",
}
SCALES = (2.0, 1.0, 0.5)  # of the map of stride 16: P3, P4, P5

logger = logging.getLogger(__name__)


class PlainViT(ViT, PretrainedNetwork):
    """``detectron2.modeling.ViT`` of stride 16, with windows in all but a few of its blocks.

    Source: Li et al., Exploring Plain Vision Transformer Backbones for Object Detection, 2022.

    Args:
        embed_dim: number of channels.
        depth: number of blocks.
        num_heads: number of attention heads; divides the channels.
        window_size: side of the attention's windows, in cells of 16 pixels.
        global_blocks: number of blocks that attend to the whole image, the last one of each of as
            many equal parts.
        drop_path_rate: rate of the last block's stochastic depth; falls linearly towards the image.
        img_size: image size in pixels for which the tables of relative positions are made; for
            others they are interpolated.
        freeze_at: freeze the patch and position embeddings (1) and so many quarters of the blocks
            as ``res2`` to ``res<freeze_at>`` are stages.
        in_channels: of an image.

    Raises:
        ValueError: heads that do not divide the channels, or blocks that cannot be parted so.
    """

    pixel_format = IMAGENET_RGB

    def __init__(
        self,
        *,
        embed_dim: int = DEFAULTS["EMBED_DIM"],
        depth: int = DEFAULTS["DEPTH"],
        num_heads: int = DEFAULTS["NUM_HEADS"],
        window_size: int = DEFAULTS["WINDOW_SIZE"],
        global_blocks: int = DEFAULTS["GLOBAL_BLOCKS"],
        drop_path_rate: float = DEFAULTS["DROP_PATH_RATE"],
        img_size: int = DEFAULTS["IMG_SIZE"],
        freeze_at: int = 0,
        in_channels: int = 3,
    ) -> None:
        node = "MODEL.BACKBONE.ViT"
        if embed_dim % num_heads:
            raise ValueError(
                f"{node}.NUM_HEADS: {num_heads} heads do not divide EMBED_DIM {embed_dim}"
            )
        if not 0 < global_blocks <= depth or depth % global_blocks:
            raise ValueError(
                f"{node}.GLOBAL_BLOCKS is {global_blocks}, which must divide DEPTH {depth}"
            )
        part = depth // global_blocks
        with layers_of_timm():
            super().__init__(
                img_size=img_size,
                in_chans=in_channels,
                embed_dim=embed_dim,
                depth=depth,
                num_heads=num_heads,
                drop_path_rate=drop_path_rate,
                window_size=window_size,
                window_block_indexes=[i for i in range(depth) if (i + 1) % part],
                norm_layer=partial(nn.LayerNorm, eps=1e-6),
                use_rel_pos=True,
            )
        if freeze_at:
            self.pos_embed.requires_grad_(False)
            quarters = min(freeze_at - 1, 4)
            for module in (self.patch_embed, *self.blocks[: depth * quarters // 4]):
                module.requires_grad_(False)


class SimplePyramid(SimpleFeaturePyramid):
    """``detectron2.modeling.SimpleFeaturePyramid`` with P3 to P7, P6 and P7 of P5.

    Args:
        net: a :class:`PlainViT`.
        out_channels: of every level.
        norm: of the convolutions.
    """

    def __init__(self, *, net: ViT, out_channels: int = 256, norm: str = "LN") -> None:
        super().__init__(
            net=net,
            in_feature=net._out_features[0],
            out_channels=out_channels,
            scale_factors=SCALES,
            top_block=LastLevelP6P7(out_channels, out_channels, in_feature="p5"),
            norm=norm,
        )

    @property
    def size_divisibility(self) -> int:
        """32: the parent writes it into ``padding_constraints``, misspelt."""
        return self._size_divisibility


@BACKBONES.register(defaults=DEFAULTS, node="ViT")
def build_retinanet_vit_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """Detectron2's ViT and its simple feature pyramid, which replaces ``MODEL.NECK``.

    The settings ``MODEL.BACKBONE.ViT`` are arguments of :class:`PlainViT` but for:

    Settings:
        pyramid_norm: norm of the pyramid's convolutions.
    """
    settings = BACKBONES.settings(cfg, "build_retinanet_vit_fpn_backbone")
    norm = settings.pop("PYRAMID_NORM")
    if NECKS.selected(cfg) != NECKS.default:
        logger.warning(f"{NECKS.selector} has no effect: a ViT has the simple feature pyramid")
    net = PlainViT(
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        in_channels=input_shape.channels,
        **{key.lower(): value for key, value in settings.items()},
    )
    return SimplePyramid(net=net, out_channels=cfg.MODEL.FPN.OUT_CHANNELS, norm=norm)
