"""What assigners share: one image after the other, regions and borders that nobody shall learn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from retina_plugin.modeling.contracts import IGNORE, DenseTargets, Predictions, ignored_boxes

SHARED_DEFAULTS = {"IGNORE_IOF": 0.5, "ALLOWED_BORDER": -1.0}
_PAIRS = 1 << 21  # boxes x anchors at a time
_PAIRS_ON_DEVICE = 1 << 24


class Match(NamedTuple):
    """The assignment of one image's R anchors.

    Attributes:
        box: ``(R,)`` int64, index of the matched box; any number where the anchor is no object.
        quality: ``(R,)`` int64: 1 object, 0 background, -1 ignored.
        scores: ``(R,)`` in [0, 1], see ``DenseTargets.scores``, or None.
    """

    box: Tensor
    quality: Tensor
    scores: Tensor | None = None


class PerImageAssigner(ABC):
    """An assigner that looks at one image at a time; subclasses say how in :meth:`match`.

    Args:
        ignore_iof: share of its area in an ignored region (a crowd box, see
            ``INPUT.IGNORE_CROWD``) from which a background anchor gets label -1.
        allowed_border: distance in pixels beyond the edge of the unpadded image from which an
            anchor gets label -1; negative for no limit.

    Raises:
        ValueError: ``ignore_iof`` is not in (0, 1].
    """

    def __init__(self, *, ignore_iof: float = 0.5, allowed_border: float = -1.0) -> None:
        if not 0 < ignore_iof <= 1:
            raise ValueError(f"{self._node}.IGNORE_IOF must be in (0, 1], got {ignore_iof}")
        self.ignore_iof = ignore_iof
        self.allowed_border = allowed_border

    @property
    def _node(self) -> str:
        """Of this component's own settings."""
        return f"MODEL.RETINANET.ASSIGNER.{type(self).__name__}"

    @abstractmethod
    def match(
        self,
        anchors: Sequence[Tensor],
        instances: Instances,
        predictions: Predictions | None,
        image: int,
    ) -> Match:
        """Assign one image, which has at least one box and one anchor.

        Args:
            anchors: ``(R_l, 4)`` a level.
            instances: the image's ground truth.
            predictions: of the whole batch.
            image: index of the image in it.
        """

    @torch.no_grad()
    def __call__(
        self,
        anchors: Sequence[Boxes],
        instances: Sequence[Instances],
        num_classes: int,
        predictions: Predictions | None = None,
    ) -> DenseTargets:
        """See :class:`retina_plugin.modeling.contracts.Assigner`."""
        levels = [x.tensor for x in anchors]
        all_anchors = torch.cat(levels)
        matches = [
            self.match(levels, x, predictions, i)
            if len(x) and len(all_anchors)
            else _nothing(all_anchors)
            for i, x in enumerate(instances)
        ]
        labels = [
            self._labels(match, all_anchors, x, num_classes)
            for match, x in zip(matches, instances, strict=True)
        ]
        scores = [match.scores for match in matches if match.scores is not None]
        if scores:  # an image without boxes has none
            zeros = torch.zeros_like(scores[0])
            scores = [zeros if match.scores is None else match.scores for match in matches]
        return DenseTargets(
            labels=torch.stack(labels),
            matched=torch.stack([match.box for match in matches]),
            instances=instances,
            anchors=all_anchors,
            level_sizes=tuple(len(x) for x in anchors),
            num_classes=num_classes,
            scores=torch.stack(scores) if scores else None,
        )

    def _labels(
        self, match: Match, anchors: Tensor, instances: Instances, num_classes: int
    ) -> Tensor:
        """``(R,)`` by the legend."""
        quality, background = match.quality, num_classes
        regions = ignored_boxes(instances)
        if regions is not None and len(regions):
            inside = largest_iof(anchors, regions) >= self.ignore_iof
            quality = quality.masked_fill((quality == 0) & inside, IGNORE)
        if self.allowed_border >= 0:
            over = reach_over(anchors, instances.image_size) > self.allowed_border
            quality = quality.masked_fill(over, IGNORE)
        if len(instances) == 0:
            labels = torch.full_like(quality, background)
        else:
            labels = instances.gt_classes[match.box].masked_fill(quality == 0, background)
        return labels.masked_fill(quality == IGNORE, IGNORE)


def _nothing(anchors: Tensor) -> Match:
    zeros = torch.zeros(len(anchors), dtype=torch.int64, device=anchors.device)
    return Match(box=zeros, quality=zeros)


def largest_iof(anchors: Tensor, regions: Tensor) -> Tensor:
    """``(R, 4), (I, 4) -> (R,)``: the largest part of each anchor's own area in one region."""
    best = anchors.new_zeros(len(anchors))
    area = (anchors[:, 2:] - anchors[:, :2]).prod(dim=1)
    for region in regions:
        sides = torch.minimum(anchors[:, 2:], region[2:]) - torch.maximum(
            anchors[:, :2], region[:2]
        )
        best = torch.maximum(best, sides.clamp(min=0).prod(dim=1) / area)
    return best


def reach_over(anchors: Tensor, image_size: tuple[int, int]) -> Tensor:
    """``(R, 4) -> (R,)``: how many pixels each anchor reaches over the image's edge, or less."""
    height, width = image_size
    right, below = anchors[:, 2] - width, anchors[:, 3] - height
    return torch.stack([-anchors[:, 0], -anchors[:, 1], right, below]).amax(dim=0)


def chunks_of_boxes(count: int, num_anchors: int, device: torch.device) -> Iterator[slice]:
    """So many boxes at a time that their matrix with the anchors stays small."""
    pairs = _PAIRS if device.type == "cpu" else _PAIRS_ON_DEVICE
    step = max(1, pairs // max(num_anchors, 1))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def centre_is_inside(anchors: Tensor, boxes: Tensor) -> Tensor:
    """``(..., 4), (..., 4) -> (...)`` bool, broadcast: strictly inside."""
    centre = (anchors[..., :2] + anchors[..., 2:]) / 2
    return ((centre > boxes[..., :2]) & (centre < boxes[..., 2:])).all(dim=-1)


def broadcast_iou(first: Tensor, second: Tensor) -> Tensor:
    """``(..., 4), (..., 4) -> (...)``, broadcast; 0 where both are empty."""
    sides = torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(
        first[..., :2], second[..., :2]
    )
    overlap = sides.clamp_(min=0).prod(dim=-1)
    areas = [(x[..., 2:] - x[..., :2]).clamp(min=0).prod(dim=-1) for x in (first, second)]
    return (overlap / (areas[0] + areas[1] - overlap)).nan_to_num_(0.0, 0.0)


def award(anchor: Tensor, valid: Tensor, value: Tensor, num_anchors: int) -> tuple[Tensor, Tensor]:
    """Give every anchor that boxes compete for to the one with the highest value.

    Args:
        anchor: ``(M, C)`` int64: the C candidates of each box.
        valid: ``(M, C)`` bool: which of them count.
        value: ``(M, C)``; of equal ones the first box wins.
        num_anchors: R.

    Returns:
        ``(R,)`` int64 the box, and ``(R,)`` bool whether there is one.
    """
    count, flat = len(anchor), anchor.flatten()
    value = value.masked_fill(~valid, -torch.inf)
    best = value.new_full((num_anchors,), -torch.inf)
    best = best.scatter_reduce(0, flat, value.flatten(), "amax")
    box = torch.arange(count, device=anchor.device)[:, None].expand_as(anchor)
    box = box.masked_fill(~valid | (value < best[anchor]), count)
    winner = flat.new_full((num_anchors,), count).scatter_reduce(0, flat, box.flatten(), "amin")
    return winner.clamp(max=count - 1), winner < count
