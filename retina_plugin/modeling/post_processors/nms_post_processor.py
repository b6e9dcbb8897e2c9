"""Non-maximum suppression, and what every post-processor does around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import batched_nms
from detectron2.structures import Boxes, Instances
from torch import Tensor

from retina_plugin.modeling.contracts import BoxCoder, box_dim
from retina_plugin.modeling.post_processors.candidates import select_candidates
from retina_plugin.modeling.post_processors.traced_candidates import traced_candidates, traced_nms
from retina_plugin.modeling.stock_names import StockNames
from retina_plugin.registry import POST_PROCESSORS

SHARED_DEFAULTS = {"CLASS_AGNOSTIC": False, "TOPK_PER_LEVEL": ()}


@POST_PROCESSORS.register(defaults=SHARED_DEFAULTS)
class NMSPostProcessor(StockNames):
    """Per level the best ``topk`` above a score, decoded, then non-maximum suppression per class.

    Equal to ``detectron2.modeling.meta_arch.RetinaNet.inference_single_image``, order included.

    Subclasses replace :meth:`suppress` or :meth:`place`.

    Args:
        coder: turns deltas into boxes.
        num_classes: K.
        score_thresh: detections score above it.
        topk: kept per level and image before NMS.
        nms_thresh: IoU above which the lower score of a class goes.
        max_detections: per image.
        class_agnostic: whether boxes suppress those of other classes, for objects that never
            overlap.
        topk_per_level: number of candidates of each level, P3 first; empty for ``topk`` on all.
        num_levels: where it is known already, ``topk_per_level`` is checked at once.

    Raises:
        ValueError: a threshold is not in [0, 1], or a number of candidates negative.
    """

    stock_names = {
        "num_classes": "num_classes",
        "test_score_thresh": "score_thresh",
        "test_topk_candidates": "topk",
        "test_nms_thresh": "nms_thresh",
        "max_detections_per_image": "max_detections",
    }

    def __init__(
        self,
        *,
        coder: BoxCoder,
        num_classes: int,
        score_thresh: float = 0.05,
        topk: int = 1000,
        nms_thresh: float = 0.5,
        max_detections: int = 100,
        class_agnostic: bool = False,
        topk_per_level: Sequence[int] = (),
        num_levels: int | None = None,
    ) -> None:
        for key, value in (("SCORE_THRESH_TEST", score_thresh), ("NMS_THRESH_TEST", nms_thresh)):
            if not 0 <= value <= 1:
                raise ValueError(f"MODEL.RETINANET.{key} must be in [0, 1], got {value}")
        for key, counts in (
            ("MODEL.RETINANET.TOPK_CANDIDATES_TEST", [topk]),
            (f"{self._node}.TOPK_PER_LEVEL", list(topk_per_level)),
        ):
            if not all(isinstance(count, int) and count >= 0 for count in counts):
                raise ValueError(f"{key} counts candidates, 0 or more, got {counts}")
        self.coder = coder
        self.num_classes = num_classes
        self.score_thresh = score_thresh
        self.topk = topk
        self.nms_thresh = nms_thresh
        self.max_detections = max_detections
        self.class_agnostic = class_agnostic
        self.topk_per_level = tuple(topk_per_level)
        if num_levels is not None:
            self._topk(num_levels)

    def stock_attribute(self, name: str) -> str | None:
        """See :class:`StockNames`; ``topk_per_level`` takes the place of ``topk``."""
        ignored = name == "test_topk_candidates" and bool(self.topk_per_level)
        return None if ignored else super().stock_attribute(name)

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
            "num_levels": len(retinanet.IN_FEATURES),
        }

    @torch.compiler.disable  # its sizes depend on the data: compiled, each image would compile anew
    def __call__(
        self,
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        anchors: Sequence[Boxes],
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[Instances]:
        """See :class:`retina_plugin.modeling.contracts.PostProcessor`."""
        boxes, scores, classes = self._candidates(logits, deltas, anchors)
        groups = [torch.zeros_like(x) for x in classes] if self.class_agnostic else classes
        kept = self.suppress(boxes, scores, groups)
        placed = [
            Boxes(self.place(*image, keep))
            for *image, (keep, _) in zip(boxes, scores, groups, kept, strict=True)
        ]
        return [
            Instances(size, pred_boxes=b, scores=s, pred_classes=c[keep])
            for size, b, c, (keep, s) in zip(image_sizes, placed, classes, kept, strict=True)
        ]

    def _candidates(
        self, logits: Sequence[Tensor], deltas: Sequence[Tensor], anchors: Sequence[Boxes]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]]:
        """Boxes, scores and classes of the candidates, one tensor per image each."""
        topk = self._topk(len(logits))
        if torch.jit.is_tracing():
            images = traced_candidates(
                logits,
                deltas,
                anchors,
                coder=self.coder,
                num_classes=self.num_classes,
                score_thresh=self.score_thresh,
                topk=topk,
            )
            boxes, scores, classes = zip(*images, strict=True)
            return boxes, scores, classes
        found = select_candidates(logits, self.num_classes, self.score_thresh, topk)
        all_anchors = Boxes.cat(list(anchors)).tensor
        decoded = self.coder.decode(
            all_anchors[found.anchors.anchor], found.anchors.gather(deltas, box_dim(self.coder))
        )
        boxes, scores, classes = (found.by_image(x) for x in (decoded, found.scores, found.classes))
        return boxes, scores, classes

    def suppress(
        self, boxes: Sequence[Tensor], scores: Sequence[Tensor], groups: Sequence[Tensor]
    ) -> list[tuple[Tensor, Tensor]]:
        """Which candidates of each image stay, best first, and with which scores.

        Args:
            boxes: ``(n, 4)`` an image.
            scores: ``(n,)`` an image.
            groups: ``(n,)`` int64 an image; only boxes of one group suppress each other.

        Returns:
            For each image at most ``max_detections`` indices, and their scores.
        """
        # Image by image: batched_nms parts groups by adding to their coordinates, and chooses how
        # by the number of boxes. Over the whole batch it would round other boxes than Detectron2
        # does, so that up to 5 % of images change, and on CPUs take up to 20 times as long.
        nms = traced_nms if torch.jit.is_tracing() else batched_nms
        # torchvision's kernel for CPUs wants boxes and scores of one type
        keeps = [
            nms(b.float(), s.float(), g, self.nms_thresh)[: self.max_detections]
            for b, s, g in zip(boxes, scores, groups, strict=True)
        ]
        return [(keep, s[keep]) for keep, s in zip(keeps, scores, strict=True)]

    def place(self, boxes: Tensor, scores: Tensor, groups: Tensor, keep: Tensor) -> Tensor:
        """Where the kept candidates of an image lie: ``(k, 4)``, by default where they were.

        Args:
            boxes: ``(n, 4)``, all candidates.
            scores: ``(n,)``.
            groups: ``(n,)``; see :meth:`suppress`.
            keep: ``(k,)``, its indices.
        """
        return boxes[keep]

    @property
    def _node(self) -> str:
        """Of this component's own settings."""
        return f"MODEL.RETINANET.POST_PROCESSOR.{type(self).__name__}"

    def _topk(self, num_levels: int) -> tuple[int, ...]:
        """How many candidates each level may have."""
        topk = self.topk_per_level or (self.topk,) * num_levels
        if len(topk) != num_levels:
            raise ValueError(
                f"{self._node}.TOPK_PER_LEVEL needs one number for each of the {num_levels} "
                f"levels, got {list(topk)}; an empty list means "
                "MODEL.RETINANET.TOPK_CANDIDATES_TEST on every level"
            )
        return topk
