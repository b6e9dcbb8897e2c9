"""R-CNN's deltas: centre offsets and log sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling.box_regression import Box2BoxTransform
from torch import Tensor

from retina_plugin.modeling.contracts import BoxCoder
from retina_plugin.modeling.stock_names import StockNames
from retina_plugin.registry import BOX_CODERS


@BOX_CODERS.register()
class DeltaCoder(StockNames, BoxCoder):
    """``(dx, dy, dw, dh)``: centre offsets in anchor sizes and logs of the size ratios.

    ``dx = wx * (x - x_a) / w_a``, ``dw = ww * log(w / w_a)``, likewise for y and h. Decoding
    clamps dw and dh at ``log(1000 / 16)``, so that ``exp`` cannot overflow.

    Source: Girshick et al., R-CNN (2014), appendix C; ``detectron2.modeling.box_regression``.

    Args:
        weights: ``(wx, wy, ww, wh)``.

    Raises:
        ValueError: not four positive weights.
    """

    stock_names = {"box2box_transform": "transform"}

    def __init__(self, *, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> None:
        if len(weights) != 4 or min(weights) <= 0:
            raise ValueError(
                "MODEL.RETINANET.BBOX_REG_WEIGHTS needs four positive numbers (dx, dy, dw, dh), "
                f"got {tuple(weights)}"
            )
        self.transform = Box2BoxTransform(weights=tuple(weights))

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The stock key."""
        return {"weights": cfg.MODEL.RETINANET.BBOX_REG_WEIGHTS}

    def encode(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """``(P, 4), (P, 4) -> (P, 4)`` deltas that take ``anchors`` to ``boxes``.

        To the bit those of Detectron2's ``get_deltas``, which asks the device whether all anchors
        have a width, and waits for the answer.
        """
        if type(self.transform) is not Box2BoxTransform:  # somebody's own
            return self.transform.get_deltas(anchors, boxes)
        anchor_size, size = anchors[:, 2:] - anchors[:, :2], boxes[:, 2:] - boxes[:, :2]
        offset = (boxes[:, :2] + 0.5 * size) - (anchors[:, :2] + 0.5 * anchor_size)
        scale = torch.log(size / anchor_size)
        wx, wy, ww, wh = self.transform.weights
        dx, dy = wx * offset[:, 0] / anchor_size[:, 0], wy * offset[:, 1] / anchor_size[:, 1]
        return torch.stack([dx, dy, ww * scale[:, 0], wh * scale[:, 1]], dim=1)

    def decode(self, anchors: Tensor, deltas: Tensor) -> Tensor:
        """``(P, 4), (P, 4) -> (P, 4)`` boxes, in fp32 whatever the deltas' type."""
        return self.transform.apply_deltas(deltas, anchors)
