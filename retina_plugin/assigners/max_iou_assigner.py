"""The paper's assignment: by the largest IoU of each anchor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances
from torch import Tensor

from retina_plugin.assigners.best_overlaps import best_overlaps
from retina_plugin.contracts import IGNORE, DenseTargets, Predictions
from retina_plugin.registry import ASSIGNERS


@ASSIGNERS.register(defaults={"ALLOW_LOW_QUALITY_MATCHES": True})
class MaxIoUAssigner:
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
        allow_low_quality_matches: also make each box's best anchors objects, however small the
            IoU. Detectron2 does, the paper does not.

    Raises:
        ValueError: thresholds and labels do not fit each other.
    """

    def __init__(
        self,
        *,
        iou_thresholds: Sequence[float] = (0.4, 0.5),
        iou_labels: Sequence[int] = (0, IGNORE, 1),
        allow_low_quality_matches: bool = True,
    ) -> None:
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
        self.iou_thresholds = thresholds
        self.iou_labels = labels
        self.allow_low_quality_matches = allow_low_quality_matches

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The stock keys beside the assigner's own."""
        return {
            "iou_thresholds": cfg.MODEL.RETINANET.IOU_THRESHOLDS,
            "iou_labels": cfg.MODEL.RETINANET.IOU_LABELS,
        }

    @torch.no_grad()
    def __call__(
        self,
        anchors: Sequence[Boxes],
        instances: Sequence[Instances],
        num_classes: int,
        predictions: Predictions | None = None,
    ) -> DenseTargets:
        """See :class:`retina_plugin.contracts.Assigner`."""
        all_anchors = Boxes.cat(list(anchors))
        assigned = [self._assign(all_anchors, x, num_classes) for x in instances]
        labels, matched = (torch.stack(parts) for parts in zip(*assigned, strict=True))
        return DenseTargets(
            labels=labels,
            matched=matched,
            instances=instances,
            anchors=all_anchors.tensor,
            level_sizes=tuple(len(x) for x in anchors),
            num_classes=num_classes,
        )

    def _assign(
        self, anchors: Boxes, instances: Instances, num_classes: int
    ) -> tuple[Tensor, Tensor]:
        """Labels and matched indices of one image, both ``(R,)``."""
        if len(instances) == 0:  # background, whatever a small IoU would mean
            labels = torch.full((len(anchors),), num_classes, device=anchors.device)
            return labels, torch.zeros_like(labels)
        best = best_overlaps(instances.gt_boxes.tensor, anchors.tensor)
        quality = torch.full_like(best.box, self.iou_labels[0])
        for threshold, label in zip(self.iou_thresholds, self.iou_labels[1:], strict=True):
            quality.masked_fill_(best.iou >= threshold, label)
        if self.allow_low_quality_matches:
            quality.masked_fill_(best.is_best, 1)
        labels = instances.gt_classes[best.box]
        labels = labels.masked_fill(quality == 0, num_classes).masked_fill(quality == -1, IGNORE)
        return labels, best.box
