"""Soft-NMS: what overlaps a better box loses score instead of going."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from retina_plugin.contracts import BoxCoder
from retina_plugin.inference.nms_post_processor import SHARED_DEFAULTS, NMSPostProcessor
from retina_plugin.registry import POST_PROCESSORS

GONE = -1.0  # of no box, or one taken already: no true score is below 0


@torch.no_grad()
def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor,
    *,
    decay: Callable[[Tensor], Tensor],
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


def gaussian_decay(iou: Tensor, sigma: float) -> Tensor:
    """``exp(-u^2 / sigma)`` of an IoU u: equation 3."""
    return torch.exp(iou.square() / -sigma)


def linear_decay(iou: Tensor, nms_thresh: float) -> Tensor:
    """``1 - u`` of an IoU u above the threshold, else 1: equation 2."""
    return torch.where(iou > nms_thresh, 1 - iou, 1)


@POST_PROCESSORS.register(
    defaults={**SHARED_DEFAULTS, "METHOD": "gaussian", "SIGMA": 0.5, "MIN_SCORE": 0.001}
)
class SoftNMSPostProcessor(NMSPostProcessor):
    """:class:`NMSPostProcessor` with soft-NMS, for crowds, where boxes of two objects overlap.

    A box that overlaps a better one of its class by an IoU u keeps this part of its score::

        gaussian: exp(-u^2 / sigma)
        linear:   1 - u where u > nms_thresh, else all of it

    Source: Bodla et al. 2017, equations 2 and 3. The linear one starts above the threshold, as
    hard NMS and the authors' code do, not at it. Scores become fp32.

    Args:
        method: ``"gaussian"`` or ``"linear"``.
        sigma: of the gaussian, which has no use for ``nms_thresh``.
        min_score: a detection's reduced score is above it, as its score is above
            ``score_thresh``.

    The other arguments are :class:`NMSPostProcessor`'s.

    Raises:
        ValueError: a setting is out of its range.
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
        class_agnostic: bool = False,
        topk_per_level: Sequence[int] = (),
        num_levels: int | None = None,
        method: str = "gaussian",
        sigma: float = 0.5,
        min_score: float = 0.001,
    ) -> None:
        super().__init__(
            coder=coder,
            num_classes=num_classes,
            score_thresh=score_thresh,
            topk=topk,
            nms_thresh=nms_thresh,
            max_detections=max_detections,
            class_agnostic=class_agnostic,
            topk_per_level=topk_per_level,
            num_levels=num_levels,
        )
        decays = {
            "gaussian": partial(gaussian_decay, sigma=sigma),
            "linear": partial(linear_decay, nms_thresh=nms_thresh),
        }
        if method not in decays:
            raise ValueError(f"{self._node}.METHOD must be {' or '.join(decays)}, got '{method}'")
        if not sigma > 0:
            raise ValueError(f"{self._node}.SIGMA must be above 0, got {sigma}")
        if not 0 <= min_score <= 1:
            raise ValueError(f"{self._node}.MIN_SCORE must be in [0, 1], got {min_score}")
        if max_detections < 0:
            raise ValueError(
                f"TEST.DETECTIONS_PER_IMAGE must not be negative, got {max_detections}"
            )
        self._decay = decays[method]
        self.min_score = min_score

    def suppress(
        self, boxes: Sequence[Tensor], scores: Sequence[Tensor], groups: Sequence[Tensor]
    ) -> list[tuple[Tensor, Tensor]]:
        """See :meth:`NMSPostProcessor.suppress`."""
        index, reduced = soft_nms(
            pad_sequence(list(boxes), batch_first=True),
            pad_sequence([x.float() for x in scores], batch_first=True, padding_value=GONE),
            pad_sequence(list(groups), batch_first=True),
            decay=self._decay,
            max_detections=self.max_detections,
        )
        counts = (reduced > self.min_score).sum(dim=1).tolist()
        return [(i[:n], s[:n]) for i, s, n in zip(index, reduced, counts, strict=True)]
