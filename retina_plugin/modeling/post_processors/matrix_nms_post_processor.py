"""Matrix NMS: soft suppression of all boxes at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.structures import Boxes, pairwise_iou
from torch import Tensor

from retina_plugin.modeling.post_processors.score_decay import (
    DECAY_DEFAULTS,
    METHODS,
    Decay,
    ScoreDecayPostProcessor,
)
from retina_plugin.registry import POST_PROCESSORS

_BLOCK = 1024  # boxes whose IoU with all better ones is held at a time


@torch.no_grad()
def matrix_nms(boxes: Tensor, scores: Tensor, groups: Tensor, *, decay: Decay) -> Tensor:
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
    order = _best_first(scores)[1]
    boxes, sorted_groups = boxes[order], groups[order]
    count = order.shape[0]  # a tensor while it is traced
    rank = torch.arange(count, device=scores.device)
    nearest = torch.zeros_like(scores)  # the IoU with the better box that overlaps most
    factors = torch.ones_like(scores)
    if torch.jit.is_tracing():  # a trace keeps the number of blocks: one for any number of boxes
        blocks = [(slice(None), slice(None))]
    else:
        blocks = [
            (slice(start, start + _BLOCK), slice(min(start + _BLOCK, count)))
            for start in range(0, count, _BLOCK)
        ]
    for block, above in blocks:
        better = rank[above, None] < rank[block]
        better.logical_and_(sorted_groups[above, None] == sorted_groups[block])
        iou = pairwise_iou(Boxes(boxes[above]), Boxes(boxes[block])) * better
        nearest[block] = iou.amax(dim=0)
        own = decay(nearest[above, None]).clamp(min=torch.finfo(scores.dtype).tiny)
        factors[block] = torch.where(better, decay(iou) / own, 1).amin(dim=0)
    return scores * torch.empty_like(factors).scatter_(0, order, factors)


def _best_first(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sorted scores and their indices; of equal scores the first comes first."""
    if torch.onnx.is_in_onnx_export():  # has no stable sort
        return scores.topk(scores.shape[0])
    return scores.sort(descending=True, stable=True)


def linear_decay(iou: Tensor) -> Tensor:
    """``1 - u`` of an IoU u."""
    return 1 - iou


@POST_PROCESSORS.register(
    defaults={**DECAY_DEFAULTS, "MIN_SCORE": 0.05}, choices={"METHOD": METHODS}
)
class MatrixNMSPostProcessor(ScoreDecayPostProcessor):
    """:class:`NMSPostProcessor` with Matrix NMS; ``nms_thresh`` has no part in it.

    Like soft-NMS it lowers the scores of what overlaps, and unlike that without a loop over the
    detections: see :func:`matrix_nms`. ``f`` is, of an IoU u::

        gaussian: exp(-u^2 / sigma)
        linear:   1 - u

    Source: Wang et al., SOLOv2, 2020. Sigma divides, as in their equation; 0.5 is the 2 of their
    code, which multiplies. Scores become fp32.

    Args:
        method: decay of the scores: ``gaussian`` or ``linear``.
        sigma: width of the gaussian.
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
        min_score: float = 0.05,
        **shared: Any,
    ) -> None:
        super().__init__(
            method=method, sigma=sigma, min_score=min_score, linear_decay=linear_decay, **shared
        )

    def stock_attribute(self, name: str) -> str | None:
        """See :class:`~retina_plugin.modeling.stock_names.StockNames`."""
        return None if name == "test_nms_thresh" else super().stock_attribute(name)

    def suppress(
        self, boxes: Sequence[Tensor], scores: Sequence[Tensor], groups: Sequence[Tensor]
    ) -> list[tuple[Tensor, Tensor]]:
        """See :meth:`NMSPostProcessor.suppress`."""
        boxes, scores, groups = self.with_spare_boxes(boxes, scores, groups, 1)
        best = [
            _best_first(matrix_nms(b, s.float(), g, decay=self.decay))
            for b, s, g in zip(boxes, scores, groups, strict=True)
        ]
        most = self.max_detections
        return self.above_min_score((index[:most], values[:most]) for values, index in best)
