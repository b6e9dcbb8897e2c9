"""Which of the detections of overlapping tiles stand for the whole image."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from detectron2.structures import Boxes, pairwise_iou
from torch import Tensor

SLACK = 1 / 8  # of an overlap: how far the middles of one object's boxes in two tiles may lie apart
TOUCH = 1.0  # pixels from a tile's edge at which a box counts as cut off there
GONE = -1.0  # no score is below 0


class OwnedSpan(NamedTuple):
    """The pixels [start, end) of a tile along one axis, and the middles of boxes that are its own.

    These are `low` to `high`; of boxes that are not cut off at that end also up to the slack more.
    """

    start: int
    end: int
    low: float
    high: float
    slack_low: float
    slack_high: float


def owned_spans(spans: Sequence[tuple[int, int]]) -> list[OwnedSpan]:
    """Share out an axis: the border of two neighbours is the middle of what both see."""
    overlaps = [(b[0], a[1]) for a, b in pairwise(spans)]
    borders = [spans[0][0], *((start + end) / 2 for start, end in overlaps), spans[-1][1]]
    slacks = [0.0, *((end - start) * SLACK for start, end in overlaps), 0.0]
    return [
        OwnedSpan(*span, *own, *slack)
        for span, own, slack in zip(spans, pairwise(borders), pairwise(slacks), strict=True)
    ]


def is_owned(boxes: Tensor, column: OwnedSpan, row: OwnedSpan) -> Tensor:
    """Whether a box is the tile's to report: ``(n,)`` bool.

    Its middle must be in the part of the image that the tile owns. Of two neighbours the one that
    owns the middle of an object sees at least as much of it:

    * an object no longer than their overlap is whole in the tile that owns its middle, and what the
      other one sees of it, if cut off, has its middle beyond the border as well: it comes once;
    * of a longer one, cut off in both, both own the middle of what they see: it comes in parts,
      and is not lost.

    A network sees an object a little differently in each tile, so that each might leave it to the
    other. So what is not cut off may lie beyond the border by an eighth of the overlap; where it
    then comes twice, :func:`suppress_across_tiles` takes one away.

    Args:
        boxes: ``(n, 4)``, clipped to the tile, in the image's pixels.
        column, row: the tile.
    """
    owned = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    for axis, span in enumerate((column, row)):
        start, end = boxes[:, axis], boxes[:, axis + 2]
        middle = (start + end) / 2
        owned &= middle >= span.low - span.slack_low * (start > span.start + TOUCH)
        owned &= middle <= span.high + span.slack_high * (end < span.end - TOUCH)
    return owned


@torch.no_grad()
def suppress_across_tiles(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor,
    tiles: Tensor,
    *,
    iou_thresh: float,
    max_detections: int,
) -> Tensor:
    """Take the best box, drop what overlaps it in its group and *another* tile, and again.

    Within a tile the detector has chosen already. After plain non-maximum suppression there the
    result is that of ``batched_nms`` over all boxes, order included but for equal scores; what
    soft-NMS or box voting left side by side stays, and no score is lowered a second time.

    Args:
        boxes: ``(n, 4)``.
        scores: ``(n,)``, 0 or more.
        groups: ``(n,)`` int64; only boxes of one group drop each other.
        tiles: ``(n,)`` int64, where each was found.
        iou_thresh: drops what overlaps more.
        max_detections: how many to take.

    Returns:
        At most ``max_detections`` indices, best first.
    """
    scores = scores.clone()
    index = groups.new_zeros(min(max_detections, len(scores)))
    taken = scores.new_full(index.shape, GONE)
    for i in range(len(index)):
        taken[i], best = scores.max(dim=0)
        index[i] = best
        best = best[None]
        iou = pairwise_iou(Boxes(boxes[best]), Boxes(boxes)).squeeze(0)
        gone = (iou > iou_thresh) & (groups == groups[best]) & (tiles != tiles[best])
        scores.masked_fill_(gone, GONE).index_fill_(0, best, GONE)
    return index[: int((taken > GONE).sum())]
