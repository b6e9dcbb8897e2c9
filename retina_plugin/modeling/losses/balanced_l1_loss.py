"""Balanced L1 loss of the deltas."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from retina_plugin.modeling.contracts import PositiveBoxes
from retina_plugin.modeling.losses.smooth_l1_loss import plain_deltas
from retina_plugin.registry import BOX_LOSSES


@BOX_LOSSES.register(defaults={"ALPHA": 0.5, "GAMMA": 1.5, "BETA": 1.0})
class BalancedL1Loss(nn.Module):
    """Smooth L1 whose small errors weigh more, summed over the four deltas d::

        alpha / b (b |d| + 1) ln(b |d| / beta + 1) - alpha |d|    where |d| < beta
        gamma |d| + gamma / b - alpha beta                        else,   b = e^(gamma / alpha) - 1

    Source: Pang et al., Libra R-CNN, 2019, equations 6 to 10; the form with beta is mmdetection's.

    Args:
        alpha: slope at small errors; the smaller, the more they count relative to large ones.
        gamma: slope of large errors.
        beta: absolute delta from which an error is large.

    Raises:
        ValueError: a setting is not positive.
    """

    def __init__(self, *, alpha: float = 0.5, gamma: float = 1.5, beta: float = 1.0) -> None:
        super().__init__()
        for key, value in (("ALPHA", alpha), ("GAMMA", gamma), ("BETA", beta)):
            if not value > 0:
                node = "MODEL.RETINANET.BOX_LOSS.BalancedL1Loss"
                raise ValueError(f"{node}.{key} must be above 0, got {value}")
        self.alpha, self.gamma, self.beta = alpha, gamma, beta

    def forward(self, positives: PositiveBoxes) -> Tensor:
        """Returns ``(P,)``.

        Raises:
            ValueError: see :func:`~retina_plugin.modeling.losses.smooth_l1_loss.plain_deltas`.
        """
        alpha, gamma, beta = self.alpha, self.gamma, self.beta
        error = (plain_deltas(positives) - positives.gt_deltas).abs()
        b = math.expm1(gamma / alpha)
        small = alpha / b * (b * error + 1) * torch.log(b * error / beta + 1) - alpha * error
        large = gamma * error + gamma / b - alpha * beta
        return torch.where(error < beta, small, large).sum(dim=1)
