"""The paper's assignment: by the largest IoU of each anchor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, Instances, pairwise_iou
from torch import Tensor

from retina_plugin.modeling.assigners.best_overlaps import best_overlaps
from retina_plugin.modeling.assigners.per_image import SHARED_DEFAULTS, Match, PerImageAssigner
from retina_plugin.modeling.contracts import IGNORE, Predictions
from retina_plugin.modeling.stock_names import StockNames
from retina_plugin.registry import ASSIGNERS


@ASSIGNERS.register(defaults={**SHARED_DEFAULTS, "ALLOW_LOW_QUALITY_MATCHES": True})
class MaxIoUAssigner(StockNames, PerImageAssigner):
    """Label each anchor by its largest IoU with a ground-truth box.

    With thresholds ``t`` and ``len(t) + 1`` labels, an anchor whose largest IoU lies in
    ``[t[i-1], t[i])`` gets label ``i``: 0 background, -1 ignored, 1 the class of that box.

    Source: Lin et al. 2017, section 4 ("Anchors"). Labels and matches are to the bit those of
    ``detectron2.modeling.matcher.Matcher``, as Detectron2's RetinaNet uses it, but memory is
    bounded for any number of boxes, and a device is never waited for. Unlike there, a box that
    meets no anchor at all makes none an object (there it makes all of them).

    Args:
        iou_thresholds: rising, in (0, 1].
        iou_labels: one more than thresholds, each -1, 0 or 1.
        allow_low_quality_matches: whether each box's best anchors are positive however small the
            IoU, as in Detectron2 and unlike in the paper.

    The other arguments are :class:`PerImageAssigner`'s.

    Raises:
        ValueError: thresholds and labels do not fit each other.
    """

    stock_names = {"anchor_matcher": "matcher"}

    def __init__(
        self,
        *,
        iou_thresholds: Sequence[float] = (0.4, 0.5),
        iou_labels: Sequence[int] = (0, IGNORE, 1),
        allow_low_quality_matches: bool = True,
        ignore_iof: float = 0.5,
        allowed_border: float = -1.0,
    ) -> None:
        super().__init__(ignore_iof=ignore_iof, allowed_border=allowed_border)
        thresholds, labels = list(iou_thresholds), list(iou_labels)
        if len(labels) != len(thresholds) + 1 or not set(labels) <= {IGNORE, 0, 1}:
            raise ValueError(
                "MODEL.RETINANET.IOU_LABELS needs one label (-1, 0 or 1) more than IOU_THRESHOLDS "
                f"has entries, got labels {labels} for thresholds {thresholds}; "
                "the usual pair is [0, -1, 1] and [0.4, 0.5]"
            )
        rising = bool(thresholds) and thresholds == sorted(thresholds)
        if not rising or not 0 < thresholds[0] <= thresholds[-1] <= 1:
            raise ValueError(
                f"MODEL.RETINANET.IOU_THRESHOLDS must rise within (0, 1], got {thresholds}"
            )
        self.matcher = Matcher(thresholds, labels, allow_low_quality_matches)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The stock keys beside the assigner's own."""
        return {
            "iou_thresholds": cfg.MODEL.RETINANET.IOU_THRESHOLDS,
            "iou_labels": cfg.MODEL.RETINANET.IOU_LABELS,
        }

    def match(
        self,
        anchors: Sequence[Tensor],
        instances: Instances,
        predictions: Predictions | None,
        image: int,
    ) -> Match:
        """See :meth:`PerImageAssigner.match`."""
        matcher, all_anchors = self.matcher, torch.cat(list(anchors))
        if type(matcher) is not Matcher:  # somebody's own
            box, labels = matcher(pairwise_iou(instances.gt_boxes, Boxes(all_anchors)))
            return Match(box=box, quality=labels.long())
        best = best_overlaps(instances.gt_boxes.tensor, all_anchors)
        quality = torch.full_like(best.box, matcher.labels[0])
        # the matcher's thresholds begin and end with an infinity
        for threshold, label in zip(matcher.thresholds[1:-1], matcher.labels[1:], strict=True):
            quality.masked_fill_(best.iou >= threshold, label)
        if matcher.allow_low_quality_matches:
            quality.masked_fill_(best.is_best, 1)
        return Match(box=best.box, quality=quality)
