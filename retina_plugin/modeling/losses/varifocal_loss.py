"""Varifocal loss: scores that learn how good their boxes are, objects at full weight."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retina_plugin.modeling.contracts import DenseTargets, PositiveBoxes
from retina_plugin.modeling.losses.dense_sum import dense_sum, weighted
from retina_plugin.modeling.losses.focal_loss import focal_background
from retina_plugin.registry import CLS_LOSSES


def varifocal_objects(logits: Tensor, quality: Tensor, alpha: float, gamma: float) -> Tensor:
    """``q BCE(p, q)``, and where q is 0 the background's term; differentiable, any shape."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, quality, reduction="none")
    nothing = alpha * logits.sigmoid().pow(gamma) * F.softplus(logits)
    return torch.where(quality > 0, quality * cross_entropy, nothing)


@CLS_LOSSES.register(defaults={"ALPHA": 0.75, "GAMMA": 2.0})
class VarifocalLoss(nn.Module):
    """Varifocal loss: ``q BCE(p, q)`` of an object, ``-alpha p^gamma log(1 - p)`` of background.

    q is the positive's quality for its own class, see ``PositiveBoxes.quality``. Objects with
    ``gt_weight`` count that much. Their term has no exponent that ``gt_gamma_shift`` could lower.

    Source: Zhang et al., VarifocalNet, 2021, equation 2.

    Args:
        alpha: weight of background.
        gamma: exponent of background's score.

    Raises:
        ValueError: alpha is not in [0, 1], or gamma negative.
    """

    def __init__(self, *, alpha: float = 0.75, gamma: float = 2.0) -> None:
        super().__init__()
        node = "MODEL.RETINANET.CLS_LOSS.VarifocalLoss"
        if not 0 <= alpha <= 1:
            raise ValueError(f"{node}.ALPHA must be in [0, 1], got {alpha}")
        if not gamma >= 0:
            raise ValueError(f"{node}.GAMMA must be 0 or more, got {gamma}")
        self.alpha = alpha
        self.gamma = gamma

    def forward(
        self, logits: Sequence[Tensor], targets: DenseTargets, positives: PositiveBoxes
    ) -> Tensor:
        """See :class:`retina_plugin.modeling.contracts.ClassificationLoss`."""

        def objects(x: Tensor) -> Tensor:
            quality = positives.quality.to(x.dtype)
            return weighted(varifocal_objects(x, quality, self.alpha, self.gamma), targets)

        return dense_sum(
            logits, targets, lambda x: focal_background(x, 1 - self.alpha, self.gamma), objects
        )
