"""Detectron2's feature pyramid with RetinaNet's two levels on top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import FPN, Backbone

from retina_plugin.modeling.necks.stages import TOPS, level_of, stages_of, top_block_of
from retina_plugin.registry import NECKS


@NECKS.register(defaults={"TOP": "C5"}, choices={"TOP": TOPS})
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
        top: map that P6 is computed from: ``C5`` (the paper) or ``P5``.

    Raises:
        UnknownNameError: ``top`` or a stage; lists the valid ones.
        ValueError: the stages' strides, see ``stages_of`` in ``modeling/necks/stages.py``; or
            ``P5`` of a backbone that calls an output of its own so.
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
        last = stages_of(bottom_up, in_features)[-1]
        level = f"p{level_of(last)}"
        if top == "P5" and level in bottom_up.output_shape():  # FPN would take that for its own
            raise ValueError(
                f"MODEL.NECK.{type(self).__name__}.TOP P5: {type(bottom_up).__name__} has a "
                f"'{level}' itself, which Detectron2's FPN would use instead of its own: set TOP "
                "to C5, or MODEL.NECK.NAME to another neck"
            )
        super().__init__(
            bottom_up=bottom_up,
            in_features=list(in_features),
            out_channels=out_channels,
            norm=norm,
            top_block=top_block_of(
                last,
                in_features[-1],
                out_channels=out_channels,
                top=top,
                key=f"MODEL.NECK.{type(self).__name__}.TOP",
            ),
            fuse_type=fuse_type,
        )
        # FPN forgets what the backbone itself needs, such as windows of attention
        self._size_divisibility = max(self._size_divisibility, bottom_up.size_divisibility)

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
