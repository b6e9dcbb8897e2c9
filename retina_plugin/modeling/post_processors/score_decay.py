"""What the post-processors share that lower the scores of overlapping boxes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from retina_plugin.modeling.post_processors.nms_post_processor import (
    SHARED_DEFAULTS,
    NMSPostProcessor,
)

DECAY_DEFAULTS = {**SHARED_DEFAULTS, "METHOD": "gaussian", "SIGMA": 0.5}

Decay = Callable[[Tensor], Tensor]  # IoU -> factor in [0, 1], of the same shape


def gaussian_decay(iou: Tensor, sigma: float) -> Tensor:
    """``exp(-u^2 / sigma)`` of an IoU u: Soft-NMS, equation 3."""
    return torch.exp(iou.square() / -sigma)


class ScoreDecayPostProcessor(NMSPostProcessor):
    """:class:`NMSPostProcessor` whose boxes lose score to the better ones that they overlap.

    A subclass reads ``self.decay``, the factor as a function of the IoU.

    Args:
        method: ``"gaussian"`` or ``"linear"``.
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
        decays: dict[str, Decay] = {
            "gaussian": partial(gaussian_decay, sigma=sigma),
            "linear": linear_decay,
        }
        if method not in decays:
            raise ValueError(f"{self._node}.METHOD must be {' or '.join(decays)}, got '{method}'")
        if not sigma > 0:
            raise ValueError(f"{self._node}.SIGMA must be above 0, got {sigma}")
        if not 0 <= min_score <= 1:
            raise ValueError(f"{self._node}.MIN_SCORE must be in [0, 1], got {min_score}")
        if self.max_detections < 0:
            raise ValueError(
                f"TEST.DETECTIONS_PER_IMAGE must not be negative, got {self.max_detections}"
            )
        self.decay = decays[method]
        self.min_score = min_score
