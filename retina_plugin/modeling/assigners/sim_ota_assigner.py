"""SimOTA: each object's cheapest anchors, as many as overlap it well."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.structures import Instances
from torch import Tensor

from retina_plugin.modeling.assigners.per_image import (
    SHARED_DEFAULTS,
    Match,
    PerImageAssigner,
    award,
    broadcast_iou,
    centre_is_inside,
    chunks_of_boxes,
)
from retina_plugin.modeling.contracts import Predictions
from retina_plugin.modeling.softplus import softplus
from retina_plugin.registry import ASSIGNERS

_OUTSIDE = 1e5  # the price of an anchor that is not near the object's centre
_TINY = 1e-8


@ASSIGNERS.register(
    defaults={**SHARED_DEFAULTS, "TOPK": 10, "CENTRE_RADIUS": 2.5, "IOU_WEIGHT": 3.0}
)
class SimOTAAssigner(PerImageAssigner):
    """Dynamic-k assignment by cost.

    Candidates are the anchors whose centre lies in the box, or within ``centre_radius`` strides of
    its centre. Their cost is ``BCE(score, 1) - iou_weight * log(IoU)``, and 100,000 more unless
    both hold. A box gets its k cheapest, k being the sum of its ``topk`` largest IoUs, at least 1;
    an anchor of several boxes goes to the one that it is cheapest for.

    Source: Ge et al., YOLOX, 2021, section 2.1; the cost of its code. There the classification
    cost is summed over all classes and the score is multiplied by objectness, which RetinaNet has
    not; here it is that of the box's own class.

    Args:
        topk: largest number of positive anchors per box.
        centre_radius: distance from the box's centre, in strides of the anchor's level, within
            which anchors are candidates.
        iou_weight: weight of the IoU's cost relative to the classification's.

    The other arguments are :class:`PerImageAssigner`'s.

    Raises:
        ValueError: a setting is not positive.
    """

    def __init__(
        self,
        *,
        topk: int = 10,
        centre_radius: float = 2.5,
        iou_weight: float = 3.0,
        ignore_iof: float = 0.5,
        allowed_border: float = -1.0,
    ) -> None:
        super().__init__(ignore_iof=ignore_iof, allowed_border=allowed_border)
        settings = {"TOPK": topk, "CENTRE_RADIUS": centre_radius, "IOU_WEIGHT": iou_weight}
        for key, value in settings.items():
            if not value > 0 or (key == "TOPK" and not isinstance(value, int)):
                kind = "a whole number above 0" if key == "TOPK" else "above 0"
                raise ValueError(f"{self._node}.{key} must be {kind}, got {value}")
        self.topk, self.centre_radius, self.iou_weight = topk, centre_radius, iou_weight

    def match(
        self,
        anchors: Sequence[Tensor],
        instances: Instances,
        predictions: Predictions | None,
        image: int,
    ) -> Match:
        """See :meth:`PerImageAssigner.match`."""
        assert predictions is not None, f"{type(self).__name__} judges predictions"
        boxes, classes = instances.gt_boxes.tensor, instances.gt_classes
        all_anchors, predicted = torch.cat(list(anchors)), predictions.boxes(image)
        radius = self.centre_radius * _strides(anchors, predictions)[:, None]
        parts = []
        for part in chunks_of_boxes(len(boxes), len(all_anchors), boxes.device):
            own = boxes[part, None]
            in_box = centre_is_inside(all_anchors, own)
            middle = (own[..., :2] + own[..., 2:]) / 2
            region = torch.cat([middle - radius, middle + radius], dim=-1)
            in_centre = centre_is_inside(all_anchors, region)
            iou = broadcast_iou(predicted, own).masked_fill_(~(in_box | in_centre), 0)
            cost = softplus(-predictions.class_logits(image, classes[part]))
            cost -= self.iou_weight * torch.log(iou + _TINY)
            cost += _OUTSIDE * ~(in_box & in_centre)
            cost.masked_fill_(~(in_box | in_centre), torch.inf)
            count = min(self.topk, len(all_anchors))
            best = cost.topk(count, dim=1, largest=False)
            k = iou.topk(count, dim=1).values.sum(dim=1).long().clamp(min=1)
            rank = torch.arange(count, device=k.device)
            valid = (rank < k[:, None]) & best.values.isfinite()
            parts.append((best.indices, valid, -best.values))
        index, valid, value = (torch.cat(x) for x in zip(*parts, strict=True))
        box, is_object = award(index, valid, value, len(all_anchors))
        return Match(box=box, quality=is_object.long())


def _strides(anchors: Sequence[Tensor], predictions: Predictions) -> Tensor:
    """``(R,)``: pixels from each anchor's cell to the next; of a single cell the anchor's size."""
    strides = []
    for own, logits in zip(anchors, predictions.logits, strict=True):
        cells = logits.shape[2] * logits.shape[3]
        if len(own) == 0:
            continue
        per_cell = max(1, len(own) // max(cells, 1))
        step = own[per_cell] - own[0] if cells > 1 else own[0, 2:] - own[0, :2]
        strides.append(step.abs().amax().expand(len(own)))
    return torch.cat(strides) if strides else anchors[0].new_zeros(0)
