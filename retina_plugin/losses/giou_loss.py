"""Generalized IoU loss of the decoded boxes."""

from __future__ import annotations

from fvcore.nn import giou_loss
from torch import Tensor, nn

from retina_plugin.contracts import PositiveBoxes
from retina_plugin.registry import BOX_LOSSES


@BOX_LOSSES.register(alias="giou")
class GIoULoss(nn.Module):
    """``1 - IoU + (|C| - |A u B|) / |C|``.

    C is the smallest box around both; the last term pulls boxes together that do not touch.

    Source: Rezatofighi et al. 2019, algorithm 1; ``fvcore.nn.giou_loss``.
    """

    def forward(self, positives: PositiveBoxes) -> Tensor:
        """Returns ``(P,)``, each in [0, 2]."""
        return giou_loss(positives.boxes, positives.gt_boxes, reduction="none")
