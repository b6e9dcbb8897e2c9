"""Quality focal loss: scores that learn how good their boxes are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retina_plugin.modeling.contracts import DenseTargets, PositiveBoxes
from retina_plugin.modeling.losses.dense_sum import dense_sum, shifted, weighted
from retina_plugin.modeling.losses.focal_loss import focal_background
from retina_plugin.registry import CLS_LOSSES


def quality_objects(logits: Tensor, quality: Tensor, beta: float | Tensor) -> Tensor:
    """``|y - p|^beta BCE(p, y)``; differentiable, any shape. At y = 1 the focal loss's.

    The distance is kept off 0, where the derivative of a power below 1 is infinite; by its
    logarithm an exponent for each object rounds as one for all.
    """
    cross_entropy = F.binary_cross_entropy_with_logits(logits, quality, reduction="none")
    distance = (quality - logits.sigmoid()).abs().clamp(min=torch.finfo(logits.dtype).eps)
    return torch.exp(beta * distance.log()) * cross_entropy


@CLS_LOSSES.register(defaults={"BETA": 2.0})
class QualityFocalLoss(nn.Module):
    """Quality focal loss: ``|y - p|^beta ((1 - y) (-log(1 - p)) + y (-log p))``.

    y is the positive's quality for its own class (see ``PositiveBoxes.quality``), else 0. Objects
    with ``gt_gamma_shift`` have beta less that, with ``gt_weight`` count that much.

    Source: Li et al., Generalized Focal Loss, 2020, equation 5.

    Args:
        beta: exponent of the distance between score and target.

    Raises:
        ValueError: beta is negative.
    """

    def __init__(self, *, beta: float = 2.0) -> None:
        super().__init__()
        if not beta >= 0:
            node = "MODEL.RETINANET.CLS_LOSS.QualityFocalLoss"
            raise ValueError(f"{node}.BETA must be 0 or more, got {beta}")
        self.beta = beta

    def forward(
        self, logits: Sequence[Tensor], targets: DenseTargets, positives: PositiveBoxes
    ) -> Tensor:
        """See :class:`retina_plugin.modeling.contracts.ClassificationLoss`."""

        def objects(x: Tensor) -> Tensor:
            quality = positives.quality.to(x.dtype)
            return weighted(quality_objects(x, quality, shifted(self.beta, targets)), targets)

        return dense_sum(logits, targets, lambda x: focal_background(x, -1, self.beta), objects)
