"""Smooth L1 loss of the deltas."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from fvcore.nn import smooth_l1_loss
from torch import Tensor, nn

from retina_plugin.contracts import PositiveBoxes
from retina_plugin.registry import BOX_LOSSES


@BOX_LOSSES.register(alias="smooth_l1")
class SmoothL1Loss(nn.Module):
    """``sum_i (d_i^2 / (2 beta) if |d_i| < beta else |d_i| - beta / 2)`` over the four deltas.

    Source: Girshick, Fast R-CNN (2015), equation 3; ``fvcore.nn.smooth_l1_loss``.

    Args:
        beta: where the square ends, in deltas; 0 is L1.

    Raises:
        ValueError: ``beta`` is negative.
    """

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
        """Returns ``(P,)``."""
        loss = smooth_l1_loss(positives.deltas, positives.gt_deltas, self.beta, reduction="none")
        return loss.sum(dim=1)
