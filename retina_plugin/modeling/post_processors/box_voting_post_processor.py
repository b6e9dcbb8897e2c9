"""Box voting: what NMS throws away has a say in where the kept box lies."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.structures import Boxes, pairwise_iou
from torch import Tensor

from retina_plugin.modeling.post_processors.nms_post_processor import (
    SHARED_DEFAULTS,
    NMSPostProcessor,
)
from retina_plugin.registry import POST_PROCESSORS


@torch.no_grad()
def vote(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor,
    keep: Tensor,
    *,
    vote_thresh: float,
    once: bool = False,
) -> Tensor:
    """Each kept box, moved to the mean, weighted by score, of those of its group that overlap it.

    ``B = sum_j s_j B_j / sum_j s_j`` over the boxes j of an IoU above ``vote_thresh``, itself
    included. A box without an IoU (no area, not finite) neither votes nor moves.

    Source: Gidaris and Komodakis, Object detection via a multi-region & semantic segmentation-aware
    CNN model, 2015, section 4.

    Args:
        boxes: ``(n, 4)``.
        scores: ``(n,)`` in [0, 1].
        groups: ``(n,)`` int64.
        keep: ``(k,)`` indices.
        vote_thresh: in [0, 1).
        once: a box votes for one kept box alone, the one that it overlaps most.

    Returns:
        ``(k, 4)``.
    """
    kept = boxes[keep]
    iou = pairwise_iou(Boxes(kept), Boxes(boxes)) * (groups[keep, None] == groups)
    votes = iou > vote_thresh
    if once and len(keep):
        votes &= iou.argmax(dim=0) == torch.arange(len(keep), device=keep.device)[:, None]
    weights = votes * scores.to(boxes.dtype)
    total = weights.sum(dim=1, keepdim=True)
    mean = weights @ boxes.nan_to_num(0, 0, 0) / total
    return torch.where(total > 0, mean, kept)


@POST_PROCESSORS.register(defaults={**SHARED_DEFAULTS, "VOTE_THRESH": 0.5})
class BoxVotingPostProcessor(NMSPostProcessor):
    """:class:`NMSPostProcessor` whose detections are moved by the boxes that they suppressed.

    See :func:`vote`. Which detections there are, and their scores, stays as it is.

    Args:
        vote_thresh: IoU above which a suppressed box of the same class votes.

    The other arguments are :class:`NMSPostProcessor`'s.

    Raises:
        ValueError: a setting is out of its range.
    """

    def __init__(
        self,
        *,
        vote_thresh: float = 0.5,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        if not 0 <= vote_thresh < 1:
            raise ValueError(f"{self._node}.VOTE_THRESH must be in [0, 1), got {vote_thresh}")
        self.vote_thresh = vote_thresh

    def place(self, boxes: Tensor, scores: Tensor, groups: Tensor, keep: Tensor) -> Tensor:
        """See :meth:`NMSPostProcessor.place`."""
        return vote(boxes, scores, groups, keep, vote_thresh=self.vote_thresh)
