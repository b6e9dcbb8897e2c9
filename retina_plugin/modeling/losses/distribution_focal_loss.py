"""Distribution focal loss of boxes that are coded as distributions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retina_plugin.modeling.contracts import PositiveBoxes
from retina_plugin.registry import BOX_LOSSES


@BOX_LOSSES.register()
class DistributionFocalLoss(nn.Module):
    """``-((y_r - y) log S_l + (y - y_l) log S_r)``, mean over the four sides.

    y is the right distance, l and r the units below and above it, S the softmax of the side's
    distribution. Half of a loss: see :class:`SumOfBoxLosses`.

    Source: Li et al., Generalized Focal Loss, 2020, equation 6.
    """

    def forward(self, positives: PositiveBoxes) -> Tensor:
        """Returns ``(P,)``, in fp32 at least.

        Raises:
            ValueError: the box coder predicts no distributions.
        """
        right = positives.gt_deltas.reshape(-1)
        count = len(positives.deltas)
        if positives.deltas.shape[1] <= 4:
            raise ValueError(
                "DistributionFocalLoss is for boxes that are predicted as distributions: set "
                "MODEL.RETINANET.BOX_CODER.NAME: IntegralBoxCoder"
            )
        logits = positives.deltas.reshape(count * 4, positives.deltas.shape[1] // 4)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        below = right.floor().long()
        cost = (F.cross_entropy(logits, below + step, reduction="none") for step in (0, 1))
        share = right - below
        low, high = cost
        return (low * (1 - share) + high * share).view(count, 4).mean(dim=1)
