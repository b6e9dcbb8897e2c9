"""Matrix NMS: soft suppression of all boxes at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from detectron2.structures import Boxes, pairwise_iou
from torch import Tensor

from retina_plugin.contracts import BoxCoder
from retina_plugin.inference.nms_post_processor import SHARED_DEFAULTS, NMSPostProcessor
from retina_plugin.inference.soft_nms_post_processor import gaussian_decay
from retina_plugin.registry import POST_PROCESSORS

_BLOCK = 1024  # boxes whose IoU with all better ones is held at a time


@torch.no_grad()
def matrix_nms(
    boxes: Tensor, scores: Tensor, groups: Tensor, *, decay: Callable[[Tensor], Tensor]
) -> Tensor:
    """The scores, each reduced by the better boxes of its group: ``(n,)``.

    ``s_j min_i f(u_ij) / f(max_k u_ki)`` over the boxes i better than j, and k better than i: a box
    that was suppressed itself suppresses less. Of equal scores the first is better. The host never
    waits for the device, but all pairs are compared, whatever their groups.

    Source: Wang et al., SOLOv2, 2020, section 3.3, equations 4 and 5.

    Args:
        boxes: ``(n, 4)``.
        scores: ``(n,)``.
        groups: ``(n,)`` int64; boxes of different groups never touch each other.
        decay: f, IoU -> factor in [0, 1], falling, the same shape.
    """
    order = scores.argsort(descending=True, stable=True)
    boxes, sorted_groups = boxes[order], groups[order]
    rank = torch.arange(len(order), device=scores.device)
    nearest = torch.zeros_like(scores)  # the IoU with the better box that overlaps most
    factors = torch.ones_like(scores)
    for start in range(0, len(order), _BLOCK):
        block, above = slice(start, start + _BLOCK), slice(min(start + _BLOCK, len(order)))
        better = rank[above, None] < rank[block]
        better &= sorted_groups[above, None] == sorted_groups[block]
        iou = pairwise_iou(Boxes(boxes[above]), Boxes(boxes[block])) * better
        nearest[block] = iou.amax(dim=0)
        own = decay(nearest[above, None]).clamp(min=torch.finfo(scores.dtype).tiny)
        factors[block] = torch.where(better, decay(iou) / own, 1).amin(dim=0)
    return scores * torch.empty_like(factors).scatter_(0, order, factors)


def linear_decay(iou: Tensor) -> Tensor:
    """``1 - u`` of an IoU u."""
    return 1 - iou


@POST_PROCESSORS.register(
    defaults={**SHARED_DEFAULTS, "METHOD": "gaussian", "SIGMA": 0.5, "MIN_SCORE": 0.05}
)
class MatrixNMSPostProcessor(NMSPostProcessor):
    """:class:`NMSPostProcessor` with Matrix NMS; ``nms_thresh`` has no part in it.

    Like soft-NMS it lowers the scores of what overlaps, and unlike that without a loop over the
    detections: see :func:`matrix_nms`. ``f`` is, of an IoU u::

        gaussian: exp(-u^2 / sigma)
        linear:   1 - u

    Source: Wang et al., SOLOv2, 2020. Sigma divides, as in their equation; 0.5 is the 2 of their
    code, which multiplies. Scores become fp32.

    Args:
        method: ``"gaussian"`` or ``"linear"``.
        sigma: of the gaussian.
        min_score: a detection's reduced score is above it.

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
        min_score: float = 0.05,
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
        decays = {"gaussian": partial(gaussian_decay, sigma=sigma), "linear": linear_decay}
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
        best = [
            matrix_nms(b, s.float(), g, decay=self._decay).sort(descending=True, stable=True)
            for b, s, g in zip(boxes, scores, groups, strict=True)
        ]
        counts = torch.stack([(x.values > self.min_score).sum() for x in best]).tolist()
        counts = [min(count, self.max_detections) for count in counts]
        return [(x.indices[:n], x.values[:n]) for x, n in zip(best, counts, strict=True)]
