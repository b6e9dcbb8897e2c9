"""Complete IoU loss of the decoded boxes."""

from __future__ import annotations

from detectron2.layers import ciou_loss
from torch import Tensor, nn

from retina_plugin.contracts import PositiveBoxes
from retina_plugin.registry import BOX_LOSSES


@BOX_LOSSES.register(alias="ciou")
class CIoULoss(nn.Module):
    """``1 - IoU + d^2 / c^2 + alpha v``.

    DIoU plus the aspect ratio: v = (4 / pi^2) (atan w_g/h_g - atan w/h)^2, and
    alpha = v / (1 - IoU + v), taken without gradient.

    Source: Zheng et al. 2020, equations 8-11; ``detectron2.layers.ciou_loss``.
    """

    def forward(self, positives: PositiveBoxes) -> Tensor:
        """Returns ``(P,)``, each in [0, 3]."""
        return ciou_loss(positives.boxes, positives.gt_boxes, reduction="none")
