"""Distance IoU loss of the decoded boxes."""

from __future__ import annotations

from torch import Tensor, nn

from retina_plugin.modeling.contracts import PositiveBoxes
from retina_plugin.modeling.losses.box_overlap import BoxOverlap
from retina_plugin.registry import BOX_LOSSES


@BOX_LOSSES.register(alias="diou")
class DIoULoss(nn.Module):
    """``1 - IoU + d^2 / c^2``.

    d is the distance of the centres, c the diagonal of the smallest box around both.

    Source: Zheng et al. 2020, equation 7. Equal to ``detectron2.layers.diou_loss``, which waits for
    the device.
    """

    def forward(self, positives: PositiveBoxes) -> Tensor:
        """Returns ``(P,)``, each in [0, 2]."""
        pair = BoxOverlap(positives.boxes, positives.gt_boxes)
        return 1 - pair.iou + pair.distance
