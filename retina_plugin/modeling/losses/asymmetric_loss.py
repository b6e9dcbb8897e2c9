"""Asymmetric loss: background focused more than objects, the surest of it forgotten."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from retina_plugin.modeling.contracts import DenseTargets, PositiveBoxes
from retina_plugin.modeling.losses.dense_sum import dense_sum, shifted, weighted
from retina_plugin.modeling.losses.focal_loss import focal_background, focal_objects
from retina_plugin.registry import CLS_LOSSES


def asymmetric_background(logits: Tensor, gamma: float, clip: float) -> Tensor:
    """Sum of ``-q^gamma log(1 - q)``, ``q = max(p - clip, 0)``; the derivative overwrites x.

    ``d/dx = q^(gamma - 1) (q / (1 - q) - gamma log(1 - q)) p (1 - p)``, 0 where p < clip.
    """
    if clip == 0:
        return focal_background(logits, -1, gamma)
    probability = logits.sigmoid()
    slope = probability * (1 - probability)
    q = probability.sub_(clip).clamp_(min=0)
    surprise = -torch.log1p(-q)
    total = (q.pow(gamma) * surprise).sum()
    derivative = (q / (1 - q)).add_(surprise, alpha=gamma).mul_(q.pow(gamma - 1)).mul_(slope)
    logits.copy_(torch.where(q > 0, derivative, 0))
    return total


@CLS_LOSSES.register(defaults={"GAMMA_POS": 0.0, "GAMMA_NEG": 4.0, "CLIP": 0.05})
class AsymmetricLoss(nn.Module):
    """``-(1 - p)^gamma_pos log p`` of objects, ``-q^gamma_neg log(1 - q)`` of background.

    ``q = max(p - clip, 0)``: background with a score below the clip costs nothing. Objects with
    ``gt_gamma_shift`` have gamma_pos less that, with ``gt_weight`` count that much.

    Source: Ridnik et al., Asymmetric Loss for Multi-Label Classification, 2021, equations 4 to 7.

    Args:
        gamma_pos: exponent of objects.
        gamma_neg: exponent of background.
        clip: score below which background costs nothing.

    Raises:
        ValueError: an exponent is negative, or the clip not in [0, 1).
    """

    def __init__(
        self, *, gamma_pos: float = 0.0, gamma_neg: float = 4.0, clip: float = 0.05
    ) -> None:
        super().__init__()
        node = "MODEL.RETINANET.CLS_LOSS.AsymmetricLoss"
        for key, gamma in (("GAMMA_POS", gamma_pos), ("GAMMA_NEG", gamma_neg)):
            if not gamma >= 0:
                raise ValueError(f"{node}.{key} must be 0 or more, got {gamma}")
        if not 0 <= clip < 1:
            raise ValueError(f"{node}.CLIP must be in [0, 1), got {clip}")
        self.gamma_pos, self.gamma_neg, self.clip = gamma_pos, gamma_neg, clip

    def forward(
        self,
        logits: Sequence[Tensor],
        targets: DenseTargets,
        positives: PositiveBoxes | None = None,
    ) -> Tensor:
        """See :class:`retina_plugin.modeling.contracts.ClassificationLoss`."""
        return dense_sum(
            logits,
            targets,
            lambda x: asymmetric_background(x, self.gamma_neg, self.clip),
            lambda x: weighted(focal_objects(x, -1, shifted(self.gamma_pos, targets)), targets),
        )
