"""Complete IoU loss of the decoded boxes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from retina_plugin.modeling.contracts import PositiveBoxes
from retina_plugin.modeling.losses.box_overlap import EPS, BoxOverlap
from retina_plugin.registry import BOX_LOSSES


@BOX_LOSSES.register(alias="ciou")
class CIoULoss(nn.Module):
    """``1 - IoU + d^2 / c^2 + alpha v``.

    DIoU plus the aspect ratio: v = (4 / pi^2) (atan w_g/h_g - atan w/h)^2, and
    alpha = v / (1 - IoU + v), taken without gradient.

    Source: Zheng et al. 2020, equations 8-11. Equal to ``detectron2.layers.ciou_loss``, which waits
    for the device.
    """

    def forward(self, positives: PositiveBoxes) -> Tensor:
        """Returns ``(P,)``, each in [0, 3]."""
        pair = BoxOverlap(positives.boxes, positives.gt_boxes)
        iou = pair.iou
        right, found = (_angle(x) for x in (pair.gt_boxes, pair.boxes))
        v = 4 / math.pi**2 * (right - found).square()
        with torch.no_grad():
            alpha = v / (1 - iou + v + EPS)
        return 1 - iou + pair.distance + alpha * v


def _angle(boxes: Tensor) -> Tensor:
    sides = boxes[:, 2:] - boxes[:, :2]
    return torch.atan(sides[:, 0] / sides[:, 1])
