"""Smooth L1 loss of the deltas."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from fvcore.nn import smooth_l1_loss
from torch import Tensor, nn

from retina_plugin.modeling.contracts import PositiveBoxes
from retina_plugin.modeling.stock_names import StockNames
from retina_plugin.registry import BOX_LOSSES


@BOX_LOSSES.register(alias="smooth_l1")
class SmoothL1Loss(StockNames, nn.Module):
    """``sum_i (d_i^2 / (2 beta) if |d_i| < beta else |d_i| - beta / 2)`` over the four deltas.

    Source: Girshick, Fast R-CNN (2015), equation 3; ``fvcore.nn.smooth_l1_loss``.

    Args:
        beta: where the square ends, in deltas; 0 is L1.

    Raises:
        ValueError: ``beta`` is negative.
    """

    stock_names = {"smooth_l1_beta": "beta"}

    def __init__(self, *, beta: float = 0.0) -> None:
        super().__init__()
        if beta < 0:
            raise ValueError(f"MODEL.RETINANET.SMOOTH_L1_LOSS_BETA must be >= 0, got {beta}")
        self.beta = beta

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The stock key."""
        return {"beta": cfg.MODEL.RETINANET.SMOOTH_L1_LOSS_BETA}

    def forward(self, positives: PositiveBoxes) -> Tensor:
        """Returns ``(P,)``.

        Raises:
            ValueError: see :func:`plain_deltas`.
        """
        deltas = plain_deltas(positives)
        return smooth_l1_loss(deltas, positives.gt_deltas, self.beta, reduction="none").sum(dim=1)


def plain_deltas(positives: PositiveBoxes) -> Tensor:
    """The predicted deltas ``(P, 4)``, for losses that compare them with the right ones.

    Raises:
        ValueError: the box coder predicts something else.
    """
    if positives.deltas.shape[1] != 4:
        raise ValueError(
            f"{type(positives.coder).__name__} predicts {positives.deltas.shape[1]} numbers a box, "
            "which a loss of four deltas cannot compare: set MODEL.RETINANET.BBOX_REG_LOSS_TYPE to "
            "a loss of boxes, such as giou, or MODEL.RETINANET.BOX_CODER.NAME to DeltaCoder"
        )
    return positives.deltas
