"""Generalized IoU loss of the decoded boxes."""

from __future__ import annotations

from torch import Tensor, nn

from retina_plugin.modeling.contracts import PositiveBoxes
from retina_plugin.modeling.losses.box_overlap import EPS, BoxOverlap
from retina_plugin.registry import BOX_LOSSES


@BOX_LOSSES.register(alias="giou")
class GIoULoss(nn.Module):
    """``1 - IoU + (|C| - |A u B|) / |C|``.

    C is the smallest box around both; the last term pulls boxes together that do not touch.

    Source: Rezatofighi et al. 2019, algorithm 1. Equal to ``fvcore.nn.giou_loss``, which waits for
    the device.
    """

    def forward(self, positives: PositiveBoxes) -> Tensor:
        """Returns ``(P,)``, each in [0, 2]."""
        pair = BoxOverlap(positives.boxes, positives.gt_boxes)
        hull = pair.hull.prod(dim=1)
        return 1 - pair.iou + (hull - pair.union) / (hull + EPS)
