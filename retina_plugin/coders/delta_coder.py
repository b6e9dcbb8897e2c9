"""R-CNN's deltas: centre offsets and log sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling.box_regression import Box2BoxTransform
from torch import Tensor

from retina_plugin.registry import BOX_CODERS


@BOX_CODERS.register()
class DeltaCoder:
    """``(dx, dy, dw, dh)``: centre offsets in anchor sizes and logs of the size ratios.

    ``dx = wx * (x - x_a) / w_a``, ``dw = ww * log(w / w_a)``, likewise for y and h. Decoding
    clamps dw and dh at ``log(1000 / 16)``, so that ``exp`` cannot overflow.

    Source: Girshick et al., R-CNN (2014), appendix C; ``detectron2.modeling.box_regression``.

    Args:
        weights: ``(wx, wy, ww, wh)``.

    Raises:
        ValueError: not four positive weights.
    """

    def __init__(self, *, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> None:
        if len(weights) != 4 or min(weights) <= 0:
            raise ValueError(
                "MODEL.RETINANET.BBOX_REG_WEIGHTS needs four positive numbers (dx, dy, dw, dh), "
                f"got {tuple(weights)}"
            )
        self._transform = Box2BoxTransform(weights=tuple(weights))

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The stock key."""
        return {"weights": cfg.MODEL.RETINANET.BBOX_REG_WEIGHTS}

    def encode(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """``(P, 4), (P, 4) -> (P, 4)`` deltas that take ``anchors`` to ``boxes``."""
        return self._transform.get_deltas(anchors, boxes)

    def decode(self, anchors: Tensor, deltas: Tensor) -> Tensor:
        """``(P, 4), (P, 4) -> (P, 4)`` boxes, in fp32 whatever the deltas' type."""
        return self._transform.apply_deltas(deltas, anchors)
