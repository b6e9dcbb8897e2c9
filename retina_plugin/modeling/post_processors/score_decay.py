"""What the post-processors share that lower the scores of overlapping boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from retina_plugin.modeling.post_processors.nms_post_processor import (
    SHARED_DEFAULTS,
    NMSPostProcessor,
)

DECAY_DEFAULTS = {**SHARED_DEFAULTS, "METHOD": "gaussian", "SIGMA": 0.5}

METHODS = ("gaussian", "linear")

GONE = -1.0  # score of no box, or of one that was taken already: no true score is below 0

Decay = Callable[[Tensor], Tensor]  # IoU -> factor in [0, 1], of the same shape


def gaussian_decay(iou: Tensor, sigma: float) -> Tensor:
    """``exp(-u^2 / sigma)`` of an IoU u: Soft-NMS, equation 3."""
    return torch.exp(iou.square() / -sigma)


class ScoreDecayPostProcessor(NMSPostProcessor):
    """:class:`NMSPostProcessor` whose boxes lose score to the better ones that they overlap.

    A subclass reads ``self.decay``, the factor as a function of the IoU.

    Args:
        method: ``gaussian`` or ``linear``.
        sigma: of the gaussian.
        min_score: a detection's reduced score is above it, as its score is above
            ``score_thresh``.
        linear_decay: the linear method.

    The other arguments are :class:`NMSPostProcessor`'s.

    Raises:
        ValueError: a setting is out of its range.
    """

    def __init__(
        self, *, method: str, sigma: float, min_score: float, linear_decay: Decay, **shared: Any
    ) -> None:
        super().__init__(**shared)
        if method not in METHODS:
            raise ValueError(f"{self._node}.METHOD must be {' or '.join(METHODS)}, got '{method}'")
        if not sigma > 0:
            raise ValueError(f"{self._node}.SIGMA must be above 0, got {sigma}")
        if not 0 <= min_score <= 1:
            raise ValueError(f"{self._node}.MIN_SCORE must be in [0, 1], got {min_score}")
        if self.max_detections < 0:
            raise ValueError(
                f"TEST.DETECTIONS_PER_IMAGE must not be negative, got {self.max_detections}"
            )
        self.method = method
        gaussian: Decay = partial(gaussian_decay, sigma=sigma)
        self.decay = gaussian if method == "gaussian" else linear_decay
        self.min_score = min_score

    @staticmethod
    def with_spare_boxes(
        boxes: Sequence[Tensor], scores: Sequence[Tensor], groups: Sequence[Tensor], count: int
    ) -> tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]]:
        """While tracing, append ``count`` boxes of score :data:`GONE` to each image.

        A trace keeps the number of rounds of a loop, and has no maximum over nothing.
        """
        if not torch.jit.is_tracing():
            return boxes, scores, groups
        return (
            [F.pad(x, (0, 0, 0, count)) for x in boxes],
            [F.pad(x, (0, count), value=GONE) for x in scores],
            [F.pad(x, (0, count)) for x in groups],
        )

    def above_min_score(
        self, found: Iterable[tuple[Tensor, Tensor]]
    ) -> list[tuple[Tensor, Tensor]]:
        """Drop what scores ``min_score`` or less.

        Args:
            found: indices and scores of each image, best first.
        """
        found = list(found)
        if torch.jit.is_tracing():  # a trace would keep the counts
            return [(i[s > self.min_score], s[s > self.min_score]) for i, s in found]
        counts = torch.stack([(s > self.min_score).sum() for _, s in found]).tolist()
        return [(i[:n], s[:n]) for (i, s), n in zip(found, counts, strict=True)]
