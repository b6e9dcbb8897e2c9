"""The paper's assignment: by the largest IoU of each anchor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, Instances, pairwise_iou
from torch import Tensor

from retina_plugin.contracts import IGNORE, DenseTargets
from retina_plugin.registry import ASSIGNERS


@ASSIGNERS.register(defaults={"ALLOW_LOW_QUALITY_MATCHES": True})
class MaxIoUAssigner:
    """Label each anchor by its largest IoU with a ground-truth box.

    With thresholds ``t`` and ``len(t) + 1`` labels, an anchor whose largest IoU lies in
    ``[t[i-1], t[i])`` gets label ``i``: 0 background, -1 ignored, 1 the class of that box.

    Source: Lin et al. 2017, section 4 ("Anchors"); the matching is
    ``detectron2.modeling.matcher.Matcher``, as in Detectron2's RetinaNet. Unlike there, a box that
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
        self._matcher = Matcher(thresholds, labels, allow_low_quality_matches)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The stock keys beside the assigner's own."""
        return {
            "iou_thresholds": cfg.MODEL.RETINANET.IOU_THRESHOLDS,
            "iou_labels": cfg.MODEL.RETINANET.IOU_LABELS,
        }

    @torch.no_grad()
    def __call__(
        self, anchors: Sequence[Boxes], instances: Sequence[Instances], num_classes: int
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
        iou = pairwise_iou(instances.gt_boxes, anchors)
        # The best anchors of a box that meets none would be all anchors, at an IoU of 0
        met = (iou > 0).any(dim=1).nonzero().squeeze(1)
        if len(met) == 0:  # Matcher would ask IOU_LABELS[0]; an image without boxes is background
            background = torch.full((len(anchors),), num_classes, device=anchors.device)
            return background, torch.zeros_like(background)
        matched, quality = self._matcher(iou if len(met) == len(iou) else iou[met])
        matched = met[matched]
        labels = instances.gt_classes[matched]
        labels = labels.masked_fill(quality == 0, num_classes).masked_fill(quality == -1, IGNORE)
        return labels, matched
