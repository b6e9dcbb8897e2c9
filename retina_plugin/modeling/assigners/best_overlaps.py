"""The largest IoU of every anchor and of every box, without the M x R matrix in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

_PAIRS = 1 << 20  # of a chunk on the CPU, were no box culled: its matrices fit the caches
_LEAST_CHUNK = 256  # anchors: below, the calls cost more than the culling saves
_PAIRS_ON_DEVICE = 1 << 24  # 64 MiB a matrix


class BestOverlaps(NamedTuple):
    """Who overlaps whom the most, among the R anchors and M boxes of an image.

    Attributes:
        iou: ``(R,)``, the largest IoU of each anchor, 0 where it meets no box.
        box: ``(R,)`` int64, index of that box, the first of several; 0 where it meets none.
        is_best: ``(R,)`` bool, whether some box has no anchor that it overlaps more; boxes that
            meet no anchor have none.
    """

    iou: Tensor
    box: Tensor
    is_best: Tensor


def best_overlaps(boxes: Tensor, anchors: Tensor, *, cull: bool | None = None) -> BestOverlaps:
    """The row and column maxima of ``pairwise_iou(boxes, anchors)``, bit for bit.

    A chunk of anchors at a time: memory is bounded for any number of boxes. With ``cull`` only the
    boxes that touch a chunk's surroundings are compared with it; the others' IoU is 0.

    Args:
        boxes: ``(M, 4)``.
        anchors: ``(R, 4)``; near ones should follow each other, as an anchor generator lists them.
        cull: by default on the CPU alone. A GPU has the throughput, and would make the host wait.
    """
    cull = boxes.device.type == "cpu" if cull is None else cull
    result = BestOverlaps(
        iou=anchors.new_zeros(len(anchors)),
        box=torch.zeros(len(anchors), dtype=torch.int64, device=anchors.device),
        is_best=torch.zeros(len(anchors), dtype=torch.bool, device=anchors.device),
    )
    if len(boxes) == 0 or len(anchors) == 0:
        return result
    # A coordinate at a time, each contiguous: several times faster than pairs of coordinates
    columns, anchor_columns = boxes.t().contiguous(), anchors.t().contiguous()
    best_of_box = boxes.new_zeros(len(boxes))
    chunks, best_in_chunk = list(_chunks(columns, anchor_columns, cull)), []
    for anchor, box in chunks:
        iou = _iou(columns[:, box], anchor_columns[:, anchor])
        best, row = iou.max(dim=0)
        result.iou[anchor] = best
        # among candidates alone, the first is not the first of all where none is met
        result.box[anchor] = row if isinstance(box, slice) else box[row].mul_(best > 0)
        best_in_chunk.append(iou.amax(dim=1))
        best_of_box[box] = torch.maximum(best_of_box[box], best_in_chunk[-1])
    best_of_box.masked_fill_(best_of_box == 0, torch.inf)  # an IoU of 0 is nobody's best
    for (anchor, box), best in zip(chunks, best_in_chunk, strict=True):
        if not isinstance(box, slice):
            box = _where(box, best == best_of_box[box])
            if len(box) == 0:
                continue
        iou = _iou(columns[:, box], anchor_columns[:, anchor])
        result.is_best[anchor] = (iou == best_of_box[box, None]).any(dim=0)
    return result


def _iou(boxes: Tensor, anchors: Tensor) -> Tensor:
    """``(4, m), (4, c) -> (m, c)``, the operations of ``detectron2.structures.pairwise_iou``."""
    left, top, right, bottom = boxes.unsqueeze(2)
    anchor_left, anchor_top, anchor_right, anchor_bottom = anchors
    width = torch.minimum(right, anchor_right).sub_(torch.maximum(left, anchor_left)).clamp_(min=0)
    height = torch.minimum(bottom, anchor_bottom).sub_(torch.maximum(top, anchor_top))
    intersection = width.mul_(height)  # not above 0 where there is none
    area = (right - left) * (bottom - top)
    anchor_area = (anchor_right - anchor_left) * (anchor_bottom - anchor_top)
    union = torch.add(area, anchor_area, out=height).sub_(intersection)
    return torch.where(intersection > 0, intersection / union, 0.0)


def _chunks(boxes: Tensor, anchors: Tensor, cull: bool) -> Iterator[tuple[slice, Tensor | slice]]:
    """Chunks of anchors, and which boxes each is compared with; columns of coordinates."""
    num_boxes, num_anchors = boxes.shape[1], anchors.shape[1]
    if not cull:
        size = max(_PAIRS_ON_DEVICE // num_boxes, 1)
        for start in range(0, num_anchors, size):
            yield slice(start, start + size), slice(None)
        return
    size = min(max(_PAIRS // num_boxes, _LEAST_CHUNK), num_anchors)
    rest = -num_anchors % size
    chunked = F.pad(anchors, (0, rest), mode="replicate").unflatten(1, (-1, size))
    low, high = chunked[:2].amin(2).unsqueeze(2), chunked[2:].amax(2).unsqueeze(2)  # (2, chunks, 1)
    near = ((boxes[:2].unsqueeze(1) < high) & (boxes[2:].unsqueeze(1) > low)).all(dim=0)
    for start, is_near in zip(range(0, num_anchors, size), near, strict=True):
        box = _where(torch.arange(num_boxes), is_near)
        if len(box):
            yield slice(start, start + size), box


def _where(values: Tensor, mask: Tensor) -> Tensor:
    """``values[mask]``, on the CPU, through numpy: this is no wait for a device."""
    return torch.from_numpy(values.numpy()[mask.numpy()])
