"""IoU loss of the decoded boxes."""

from __future__ import annotations

from torch import Tensor, nn

from retina_plugin.modeling.contracts import PositiveBoxes
from retina_plugin.modeling.losses.box_overlap import BoxOverlap
from retina_plugin.registry import BOX_LOSSES


@BOX_LOSSES.register(alias="iou")
class IoULoss(nn.Module):
    """``1 - IoU``. Boxes that do not touch have no gradient: :class:`GIoULoss` pulls them together.

    Source: Yu et al., UnitBox, 2016, whose loss is ``-log IoU``; this is the linear form of later
    work.
    """

    def forward(self, positives: PositiveBoxes) -> Tensor:
        """Returns ``(P,)``, each in [0, 1]."""
        return 1 - BoxOverlap(positives.boxes, positives.gt_boxes).iou
