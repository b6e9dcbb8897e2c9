"""TOOD's assignment: the anchors that score and overlap an object best."""

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
from retina_plugin.registry import ASSIGNERS

_TINY = 1e-9


@ASSIGNERS.register(defaults={**SHARED_DEFAULTS, "TOPK": 13, "ALPHA": 1.0, "BETA": 6.0})
class TaskAlignedAssigner(PerImageAssigner):
    """Task-aligned assignment with soft targets.

    The alignment of an anchor with a box is ``t = s^alpha u^beta``, of its score s for the box's
    class and the IoU u of its predicted box. Objects are the ``topk`` anchors of the largest t
    whose centre lies inside the box; one of several boxes goes to the one it overlaps most. Their
    soft target is t, scaled for each box so that its largest is the largest u.

    Source: Feng et al., TOOD, 2021, equations 6 and 7. As in YOLOv8, and unlike in the authors'
    code, the metric is used from the first step, not after four epochs of ATSS, and the ``topk``
    are of the anchors inside the box: there those of all that lie inside, which may be none.

    Args:
        topk: largest number of positive anchors per box.
        alpha: exponent of the score.
        beta: exponent of the IoU.

    The other arguments are :class:`PerImageAssigner`'s.

    Raises:
        ValueError: ``topk`` is not a positive whole number, or an exponent is negative.
    """

    def __init__(
        self,
        *,
        topk: int = 13,
        alpha: float = 1.0,
        beta: float = 6.0,
        ignore_iof: float = 0.5,
        allowed_border: float = -1.0,
    ) -> None:
        super().__init__(ignore_iof=ignore_iof, allowed_border=allowed_border)
        if not isinstance(topk, int) or topk < 1:
            raise ValueError(f"{self._node}.TOPK must be a whole number above 0, got {topk}")
        for key, value in (("ALPHA", alpha), ("BETA", beta)):
            if not value >= 0:
                raise ValueError(f"{self._node}.{key} must be 0 or more, got {value}")
        self.topk, self.alpha, self.beta = topk, alpha, beta

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
        parts = []
        for part in chunks_of_boxes(len(boxes), len(all_anchors), boxes.device):
            own = boxes[part, None]
            iou = broadcast_iou(predicted, own)
            score = predictions.class_logits(image, classes[part]).sigmoid()
            metric = score.pow(self.alpha) * iou.pow(self.beta)
            # by IoU where every metric underflows, as it may at first
            inside = centre_is_inside(all_anchors, own)
            rank = (metric + _TINY * iou).masked_fill(~inside, -1.0)
            best = rank.topk(min(self.topk, len(all_anchors)), dim=1)
            index = best.indices
            parts.append((index, best.values >= 0, metric.gather(1, index), iou.gather(1, index)))
        index, valid, metric, iou = (torch.cat(x) for x in zip(*parts, strict=True))
        box, is_object = award(index, valid, iou, len(all_anchors))
        won = valid & (box[index] == torch.arange(len(boxes), device=box.device)[:, None])
        scale = (iou * won).amax(dim=1) / (metric * won).amax(dim=1).clamp(min=_TINY)
        soft = (metric * scale[:, None] * won).clamp_(max=1)
        scores = soft.new_zeros(len(all_anchors))
        scores = scores.scatter_reduce(0, index.flatten(), soft.flatten(), "amax")
        return Match(box=box, quality=is_object.long(), scores=scores)
