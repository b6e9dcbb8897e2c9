"""Detectron2's RegNet under a neck."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import Backbone, RegNet
from detectron2.modeling.backbone.regnet import ResBottleneckBlock, SimpleStem
from torch import nn

from retina_plugin.modeling.backbones.named_by_stride import NamedByStride, stage_numbers
from retina_plugin.modeling.backbones.norms import NORMS
from retina_plugin.modeling.backbones.pixel_format import FAIR_BGR
from retina_plugin.modeling.backbones.pretrained_network import PretrainedNetwork
from retina_plugin.registry import BACKBONES, NECKS, unknown_name

# X of 4 GF, of Detectron2's new_baselines; Y of 4 GF is 22, 31.41, 96, 2.24, 64 and SE 0.25
DEFAULTS = {
    "DEPTH": 23,
    "W_A": 38.65,
    "W_0": 96,
    "W_M": 2.43,
    "GROUP_WIDTH": 40,
    "SE_RATIO": 0.0,
    "STEM_WIDTH": 32,
    "NORM": "FrozenBN",
}


class RegNetStages(NamedByStride, RegNet, PretrainedNetwork):
    """``detectron2.modeling.RegNet`` of any number of channels; outputs ``res2`` to ``res5``.

    Source: Radosavovic et al., Designing Network Design Spaces, 2020, equations 2 to 4: the widths
    of ``depth`` blocks are ``w_0 + w_a i``, rounded to powers of ``w_m`` times ``w_0``.

    Args:
        out_features: which of ``res2`` to ``res5`` (RegNet's ``s1`` to ``s4``) to return.
        depth: number of blocks.
        w_a: slope of the blocks' widths, as in RegNet's paper.
        w_0: initial width.
        w_m: multiplier between the stages' widths.
        group_width: channels of each group of the 3x3 convolutions.
        se_ratio: ratio of squeeze and excitation; 0 for none.
        stem_width: number of channels of the first convolution.
        norm: norm of the backbone: ``FrozenBN``, ``BN``, ``SyncBN``, ``GN`` (widths must be
            multiples of 32) or ``LN``.
        freeze_at: freeze the stem (1) and the stages up to ``res<freeze_at>``; 0 freezes nothing.
        in_channels: of an image.

    Raises:
        UnknownNameError: an unknown norm; lists the valid ones.
        ValueError: a stage that there is not; lists those that there are.
    """

    pixel_format = FAIR_BGR

    def __init__(
        self,
        *,
        out_features: Sequence[str] = ("res3", "res4", "res5"),
        depth: int = DEFAULTS["DEPTH"],
        w_a: float = DEFAULTS["W_A"],
        w_0: int = DEFAULTS["W_0"],
        w_m: float = DEFAULTS["W_M"],
        group_width: int = DEFAULTS["GROUP_WIDTH"],
        se_ratio: float = 0.0,
        stem_width: int = DEFAULTS["STEM_WIDTH"],
        norm: str = "FrozenBN",
        freeze_at: int = 0,
        in_channels: int = 3,
    ) -> None:
        if norm not in NORMS[1:]:
            raise unknown_name("MODEL.BACKBONE.RegNet.NORM", norm, NORMS[1:])

        def stem(_: int, *rest: Any) -> nn.Module:  # RegNet's own number of channels is 3
            return SimpleStem(in_channels, *rest)

        super().__init__(
            stem_class=stem,
            stem_width=stem_width,
            block_class=ResBottleneckBlock,
            depth=depth,
            w_a=w_a,
            w_0=w_0,
            w_m=w_m,
            group_width=group_width,
            se_ratio=se_ratio,
            norm=norm,
            freeze_at=freeze_at,
            out_features=[f"s{i + 1}" for i in stage_numbers(out_features, "RegNet")],
        )


@BACKBONES.register(defaults=DEFAULTS, node="RegNet", choices={"NORM": NORMS[1:]})
def build_retinanet_regnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """Detectron2's RegNet and a neck (``MODEL.NECK``).

    The settings ``MODEL.BACKBONE.RegNet`` are arguments of :class:`RegNetStages`.
    """
    settings = BACKBONES.settings(cfg, "build_retinanet_regnet_fpn_backbone")
    bottom_up = RegNetStages(
        out_features=cfg.MODEL.FPN.IN_FEATURES,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        in_channels=input_shape.channels,
        **{key.lower(): value for key, value in settings.items()},
    )
    return NECKS.build(cfg, bottom_up=bottom_up)
