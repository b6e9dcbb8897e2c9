"""Soft-NMS: what overlaps a better box loses score instead of going."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from retina_plugin.modeling.post_processors.score_decay import (
    DECAY_DEFAULTS,
    GONE,
    METHODS,
    Decay,
    ScoreDecayPostProcessor,
)
from retina_plugin.registry import POST_PROCESSORS


@torch.no_grad()
def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor,
    *,
    decay: Decay,
    max_detections: int,
) -> tuple[Tensor, Tensor]:
    """Take the best box, multiply its group's other scores by ``decay(IoU)``, and again.

    As scores only fall, boxes are taken best first, and the loop ends with the last one asked for.
    Of equal scores the first is taken; boxes of undefined IoU (no area, not finite) do not overlap.
    The host never waits for the device.

    Source: Bodla et al., Soft-NMS -- Improving Object Detection With One Line of Code, 2017,
    figure 2.

    Args:
        boxes: ``(N, n, 4)``.
        scores: ``(N, n)`` fp32; ``GONE`` where an image has fewer than n boxes.
        groups: ``(N, n)`` int64; boxes of different groups never touch each other.
        decay: IoU -> factor in [0, 1], the same shape.
        max_detections: how many to take of each image.

    Returns:
        Indices and scores, ``(N, min(max_detections, n))`` each, best first.
    """
    scores = scores.clone()
    num_images, count = len(scores), min(max_detections, scores.shape[1])
    index = groups.new_zeros(num_images, count)
    taken = scores.new_zeros(num_images, count)
    coordinates = boxes.permute(2, 0, 1).contiguous()  # (4, N, n)
    top_left, bottom_right = coordinates[:2], coordinates[2:]
    areas = (bottom_right - top_left).prod(dim=0)
    for i in range(count):
        taken[:, i], index[:, i] = scores.max(dim=1)
        best = index[:, i : i + 1]
        best_coordinates = coordinates.gather(2, best.expand(4, -1, -1))
        sides = torch.minimum(bottom_right, best_coordinates[2:])
        sides -= torch.maximum(top_left, best_coordinates[:2])
        overlap = sides.clamp_(min=0).prod(dim=0)
        iou = (overlap / (areas + areas.gather(1, best) - overlap)).nan_to_num_(0, 0)
        scores *= torch.where(groups == groups.gather(1, best), decay(iou), 1)
        scores.scatter_(1, best, GONE)
    return index, taken


def linear_decay(iou: Tensor, nms_thresh: float) -> Tensor:
    """``1 - u`` of an IoU u above the threshold, else 1: equation 2."""
    return torch.where(iou > nms_thresh, 1 - iou, 1)


@POST_PROCESSORS.register(
    defaults={**DECAY_DEFAULTS, "MIN_SCORE": 0.001}, choices={"METHOD": METHODS}
)
class SoftNMSPostProcessor(ScoreDecayPostProcessor):
    """:class:`NMSPostProcessor` with soft-NMS, for crowds, where boxes of two objects overlap.

    A box that overlaps a better one of its class by an IoU u keeps this part of its score::

        gaussian: exp(-u^2 / sigma)
        linear:   1 - u where u > nms_thresh, else all of it

    Source: Bodla et al. 2017, equations 2 and 3. The linear one starts above the threshold, as
    hard NMS and the authors' code do, not at it. Scores become fp32.

    Args:
        method: decay of the scores: ``gaussian`` or ``linear``.
        sigma: width of the gaussian, which does not use ``nms_thresh``.
        min_score: score that a detection must exceed after the decay.

    The other arguments are :class:`NMSPostProcessor`'s.

    Raises:
        ValueError: a setting is out of its range.
    """

    def __init__(
        self,
        *,
        method: str = "gaussian",
        sigma: float = 0.5,
        min_score: float = 0.001,
        **shared: Any,
    ) -> None:
        super().__init__(
            method=method,
            sigma=sigma,
            min_score=min_score,
            linear_decay=self._linear_decay,
            **shared,
        )

    def stock_attribute(self, name: str) -> str | None:
        """See :class:`~retina_plugin.modeling.stock_names.StockNames`."""
        if name == "test_nms_thresh" and self.method != "linear":
            return None
        return super().stock_attribute(name)

    def _linear_decay(self, iou: Tensor) -> Tensor:
        return linear_decay(iou, self.nms_thresh)

    def suppress(
        self, boxes: Sequence[Tensor], scores: Sequence[Tensor], groups: Sequence[Tensor]
    ) -> list[tuple[Tensor, Tensor]]:
        """See :meth:`NMSPostProcessor.suppress`."""
        boxes, scores, groups = self.with_spare_boxes(boxes, scores, groups, self.max_detections)
        scores = [x.float() for x in scores]
        if torch.jit.is_tracing():  # ONNX has no pad_sequence
            batches = [
                (b[None], s[None], g[None]) for b, s, g in zip(boxes, scores, groups, strict=True)
            ]
        else:
            batches = [
                (
                    pad_sequence(list(boxes), batch_first=True),
                    pad_sequence(scores, batch_first=True, padding_value=GONE),
                    pad_sequence(list(groups), batch_first=True),
                )
            ]
        found = []
        for batch in batches:
            found += zip(
                *soft_nms(*batch, decay=self.decay, max_detections=self.max_detections), strict=True
            )
        return self.above_min_score(found)
