"""ATSS: positives by the statistics of each object's own candidates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.structures import Instances
from torch import Tensor

from retina_plugin.modeling.assigners.per_image import (
    SHARED_DEFAULTS,
    Match,
    PerImageAssigner,
    award,
    broadcast_iou,
    centre_is_inside,
    chunks_of_boxes,
)
from retina_plugin.modeling.contracts import Predictions
from retina_plugin.registry import ASSIGNERS


@ASSIGNERS.register(defaults={**SHARED_DEFAULTS, "TOPK": 9})
class ATSSAssigner(PerImageAssigner):
    """Adaptive training sample selection.

    The candidates of a box are, on every level, all anchors of the ``topk`` cells whose centres are
    nearest to its own. Objects are those with ``IoU >= mean + standard deviation`` of all of the
    box's candidates, whose centre lies inside the box. An anchor of several boxes goes to the one
    it overlaps most, of equal ones to the first.

    Source: Zhang et al. 2020, algorithm 1, and the authors' code (``ATSS``, ``TOPK * A``
    candidates a level). Of cells at the same distance the first ones are taken.

    Args:
        topk: number of candidate cells per level.

    The other arguments are :class:`PerImageAssigner`'s.

    Raises:
        ValueError: ``topk`` is not a positive whole number.
    """

    def __init__(
        self, *, topk: int = 9, ignore_iof: float = 0.5, allowed_border: float = -1.0
    ) -> None:
        super().__init__(ignore_iof=ignore_iof, allowed_border=allowed_border)
        if not isinstance(topk, int) or topk < 1:
            raise ValueError(f"{self._node}.TOPK must be a whole number above 0, got {topk}")
        self.topk = topk

    def match(
        self,
        anchors: Sequence[Tensor],
        instances: Instances,
        predictions: Predictions | None,
        image: int,
    ) -> Match:
        """See :meth:`PerImageAssigner.match`."""
        boxes, all_anchors = instances.gt_boxes.tensor, torch.cat(list(anchors))
        index = torch.cat(self._candidates(anchors, boxes, predictions), dim=1)  # (M, C)
        parts = []
        for part in chunks_of_boxes(len(boxes), index.shape[1] * 4, boxes.device):
            candidates, own = all_anchors[index[part]], boxes[part, None]
            iou = broadcast_iou(candidates, own)
            unbiased = iou.shape[1] > 1
            thresh = iou.mean(dim=1) + iou.std(dim=1, unbiased=unbiased)
            parts.append((iou, (iou >= thresh[:, None]) & centre_is_inside(candidates, own)))
        iou, valid = (torch.cat(x) for x in zip(*parts, strict=True))
        box, is_object = award(index, valid, iou, len(all_anchors))
        return Match(box=box, quality=is_object.long())

    def _candidates(
        self, anchors: Sequence[Tensor], boxes: Tensor, predictions: Predictions | None
    ) -> list[Tensor]:
        """``(M, C_l)`` int64 a level: indices among all anchors."""
        found, start = [], 0
        for level, own in enumerate(anchors):
            per_cell = anchors_per_cell(own, predictions, level)
            cells = centre_of(own[::per_cell])
            cell = torch.cat(
                [
                    nearest(centre_of(boxes[part]), cells, self.topk)
                    for part in chunks_of_boxes(len(boxes), len(cells), boxes.device)
                ]
            )
            number = torch.arange(per_cell, device=boxes.device)
            found.append((cell[:, :, None] * per_cell + number + start).flatten(1))
            start += len(own)
        return found


def centre_of(boxes: Tensor) -> Tensor:
    """``(n, 4) -> (n, 2)``."""
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def anchors_per_cell(anchors: Tensor, predictions: Predictions | None, level: int) -> int:
    """A of a level: by the head's maps, else how many anchors share the first one's centre."""
    if predictions is not None:
        height, width = predictions.logits[level].shape[2:]
        return max(1, len(anchors) // max(height * width, 1))
    if len(anchors) == 0:
        return 1
    centres = centre_of(anchors)
    size = (anchors[0, 2:] - anchors[0, :2]).max()
    same = ((centres - centres[0]).abs() < 1e-3 * size).all(dim=1)
    return max(1, int(same.cumprod(dim=0).sum()))


def nearest(points: Tensor, cells: Tensor, count: int) -> Tensor:
    """``(M, 2), (n, 2) -> (M, min(count, n))``: indices of the nearest cells, ties by index.

    Exact ties are common, as boxes of whole pixels lie on a grid too, and ``topk`` breaks them as
    it likes. A distance's bits sort like the distance, so one integer holds both.
    """
    distance = (points[:, None] - cells).square().sum(dim=2).float()
    bits = distance.view(torch.int32).long() << 32
    key = bits + torch.arange(len(cells), device=cells.device)
    smallest = key.topk(min(count, len(cells)), dim=1, largest=False).values
    return smallest & 0xFFFFFFFF
