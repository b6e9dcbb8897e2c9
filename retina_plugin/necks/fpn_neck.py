"""Detectron2's feature pyramid with RetinaNet's two levels on top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelP6P7

from retina_plugin.registry import NECKS, unknown_name

TOPS = ("C5", "P5")


@NECKS.register(defaults={"TOP": "C5"})
class FPNNeck(FPN):
    """``detectron2.modeling.FPN`` with ``LastLevelP6P7``: outputs ``p3`` to ``p7`` of C3 to C5.

    Source: Lin et al., Feature Pyramid Networks for Object Detection, 2017; P6 and P7 as in Lin et
    al., Focal Loss for Dense Object Detection, 2017, footnote 2. Parameters are named as
    Detectron2 names them.

    Args:
        bottom_up: a backbone; its last stage of ``in_features`` is C5.
        in_features: names of its outputs, high resolution first.
        out_channels: of every level.
        norm: of the lateral and output convolutions; empty for none.
        fuse_type: ``sum`` or ``avg``.
        top: what P6 is made of: ``C5`` (the paper) or ``P5``.

    Raises:
        UnknownNameError: ``top`` is neither; lists them.
    """

    def __init__(
        self,
        *,
        bottom_up: Backbone,
        in_features: Sequence[str],
        out_channels: int,
        norm: str = "",
        fuse_type: str = "sum",
        top: str = "C5",
    ) -> None:
        if top not in TOPS:
            raise unknown_name("MODEL.NECK.FPNNeck.TOP", top, TOPS)
        last = bottom_up.output_shape()[in_features[-1]]
        name = in_features[-1] if top == "C5" else f"p{last.stride.bit_length() - 1}"
        channels = last.channels if top == "C5" else out_channels
        super().__init__(
            bottom_up=bottom_up,
            in_features=list(in_features),
            out_channels=out_channels,
            norm=norm,
            top_block=LastLevelP6P7(channels, out_channels, in_feature=name),
            fuse_type=fuse_type,
        )

    @classmethod
    def from_config(cls, cfg: CfgNode, bottom_up: Backbone) -> dict[str, Any]:
        """The stock keys of ``MODEL.FPN``."""
        return {
            "bottom_up": bottom_up,
            "in_features": cfg.MODEL.FPN.IN_FEATURES,
            "out_channels": cfg.MODEL.FPN.OUT_CHANNELS,
            "norm": cfg.MODEL.FPN.NORM,
            "fuse_type": cfg.MODEL.FPN.FUSE_TYPE,
        }
