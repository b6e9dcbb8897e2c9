"""Decode -> top-k -> NMS -> ``Instances``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import batched_nms, cat
from detectron2.structures import Boxes, Instances
from torch import Tensor

from retina_plugin.contracts import BoxCoder
from retina_plugin.registry import POST_PROCESSORS


@POST_PROCESSORS.register()
class NMSPostProcessor:
    """Per level the best ``topk`` above a score, decoded, then non-maximum suppression per class.

    Equal to ``detectron2.modeling.meta_arch.RetinaNet.inference_single_image``, order included.
    Unlike there the logits are compared with ``logit(score_thresh)``, and only what passes is
    gathered from the head's maps and goes through the sigmoid.

    Args:
        coder: turns deltas into boxes.
        num_classes: K.
        score_thresh: detections score above it.
        topk: kept per level and image before NMS.
        nms_thresh: IoU above which the lower score of a class goes.
        max_detections: per image.

    Raises:
        ValueError: a threshold is not in [0, 1].
    """

    def __init__(
        self,
        *,
        coder: BoxCoder,
        num_classes: int,
        score_thresh: float = 0.05,
        topk: int = 1000,
        nms_thresh: float = 0.5,
        max_detections: int = 100,
    ) -> None:
        for key, value in (("SCORE_THRESH_TEST", score_thresh), ("NMS_THRESH_TEST", nms_thresh)):
            if not 0 <= value <= 1:
                raise ValueError(f"MODEL.RETINANET.{key} must be in [0, 1], got {value}")
        self.coder = coder
        self.num_classes = num_classes
        self.score_thresh = score_thresh
        self.topk = topk
        self.nms_thresh = nms_thresh
        self.max_detections = max_detections

    @classmethod
    def from_config(cls, cfg: CfgNode, coder: BoxCoder) -> dict[str, Any]:
        """The stock keys."""
        retinanet = cfg.MODEL.RETINANET
        return {
            "coder": coder,
            "num_classes": retinanet.NUM_CLASSES,
            "score_thresh": retinanet.SCORE_THRESH_TEST,
            "topk": retinanet.TOPK_CANDIDATES_TEST,
            "nms_thresh": retinanet.NMS_THRESH_TEST,
            "max_detections": cfg.TEST.DETECTIONS_PER_IMAGE,
        }

    def __call__(
        self,
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        anchors: Sequence[Boxes],
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[Instances]:
        """See :class:`retina_plugin.contracts.PostProcessor`."""
        return [
            self._one_image([x[i] for x in logits], [x[i] for x in deltas], anchors, size)
            for i, size in enumerate(image_sizes)
        ]

    def _one_image(
        self,
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        anchors: Sequence[Boxes],
        image_size: tuple[int, int],
    ) -> Instances:
        levels = [self._one_level(*x) for x in zip(logits, deltas, anchors, strict=True)]
        boxes, scores, classes = (cat(list(x)) for x in zip(*levels, strict=True))
        keep = batched_nms(boxes, scores, classes, self.nms_thresh)[: self.max_detections]
        return Instances(
            image_size,
            pred_boxes=Boxes(boxes[keep]),
            scores=scores[keep],
            pred_classes=classes[keep],
        )

    def _one_level(
        self, logits: Tensor, deltas: Tensor, anchors: Boxes
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes ``(k, 4)``, scores and classes ``(k,)`` of one image's level, best first."""
        width = logits.shape[2]
        by_anchor = logits.unflatten(0, (-1, self.num_classes))  # (A, K, H, W)
        # nonzero of the permuted mask lists cell by cell, as Detectron2 does: ties end up alike
        candidates = (by_anchor > self._logit_thresh(logits.dtype)).permute(2, 3, 0, 1).nonzero()
        y, x, a, k = candidates.unbind(1)
        scores = by_anchor[a, k, y, x].sigmoid()
        passed = (scores > self.score_thresh).nonzero().squeeze(1)
        scores, best = scores[passed].topk(min(self.topk, len(passed)))
        y, x, a, k = (index[passed[best]] for index in (y, x, a, k))
        by_anchor_deltas = deltas.unflatten(0, (-1, 4))  # (A, 4, H, W)
        num_anchors = by_anchor_deltas.shape[0]
        boxes = self.coder.decode(
            anchors.tensor[(y * width + x) * num_anchors + a], by_anchor_deltas[a, :, y, x]
        )
        return boxes, scores, k

    def _logit_thresh(self, dtype: torch.dtype) -> float:
        """The inverse sigmoid of the threshold, lowered by what rounding in ``dtype`` can move.

        Scores s are rounded by ``eps s``, or ``eps tiny`` where they are subnormal, which in logits
        is that over ``s (1 - s)``; the logits x themselves by ``eps |x|``.
        """
        score = self.score_thresh
        if score in (0, 1):
            return math.inf if score else -math.inf
        logit, info = math.log(score / (1 - score)), torch.finfo(dtype)
        rounding = abs(logit) + max(score, info.tiny) / (score * (1 - score))
        return logit - 2 * info.eps * rounding
