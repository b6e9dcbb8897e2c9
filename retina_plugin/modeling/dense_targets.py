"""What every anchor of the batch shall become; shapes by the legend of ``contracts.py``.

The head's maps stay as the convolutions wrote them: level ``l`` has ``(N, A_l * D, H, W)``, D
numbers an anchor (K logits, 4 deltas, ...). Anchor ``r`` of a level lies at cell ``r // A_l``
(row-major) with number ``r % A_l`` there; the levels follow each other. :class:`Selection`
translates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torch.nn import functional as F

IGNORE = -1


@dataclass(frozen=True, eq=False)
class Selection:
    """Some anchors of the batch, sorted by anchor index, so that levels follow each other.

    Attributes:
        anchor: ``(P,)`` int64, index among the R anchors of an image.
        image: ``(P,)`` int64, index of the image in the batch.
        level_counts: how many of them lie on each level; sums to P.
        level_starts: the first anchor index of each level.
    """

    anchor: Tensor
    image: Tensor
    level_counts: tuple[int, ...]
    level_starts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.anchor)

    def index_level(self, level: int, map_: Tensor, dim: int) -> tuple[Tensor, ...]:
        """Index of this level's anchors into its raw map: image, first channel, y, x.

        Args:
            level: number of the level.
            map_: ``(N, A*dim, H, W)``.
            dim: entries per anchor (K, or 4).
        """
        start = sum(self.level_counts[:level])
        rows = slice(start, start + self.level_counts[level])
        width, per_cell = map_.shape[3], map_.shape[1] // dim
        local = self.anchor[rows] - self.level_starts[level]
        cell = local // per_cell
        return self.image[rows], local % per_cell * dim, cell // width, cell % width

    def gather(self, maps: Sequence[Tensor], dim: int) -> Tensor:
        """All ``dim`` entries of each selected anchor: ``(P, dim)`` out of ``(N, A*dim, H, W)``."""
        rows = []
        for level, map_ in enumerate(maps):
            image, channel, y, x = (i[:, None] for i in self.index_level(level, map_, dim))
            entry = torch.arange(dim, device=map_.device)
            rows.append(map_[image, channel + entry, y, x])
        return torch.cat(rows)


@dataclass(frozen=True, eq=False)
class DenseTargets:
    """What every anchor of the batch shall become.

    Attributes:
        labels: ``(N, R)`` int64 by the legend.
        matched: ``(N, R)`` int64, index of the matched ground truth within its image; undefined
            where the label is no object.
        instances: the ground truth of each image, with any ``gt_*`` fields.
        anchors: ``(R, 4)``, all levels.
        level_sizes: number of anchors on each level; sums to R.
        num_classes: K.
        scores: ``(N, R)`` in [0, 1], how good each positive shall say it is, where the assigner
            has an opinion; else None.
    """

    labels: Tensor
    matched: Tensor
    instances: Sequence[Instances]
    anchors: Tensor
    level_sizes: tuple[int, ...]
    num_classes: int
    scores: Tensor | None = None

    def select(self, mask: Tensor) -> Selection:
        """The anchors where the ``(N, R)`` mask is true; waits for the device once."""
        (selection,) = self._select(mask.unsqueeze(0))
        return selection

    def _select(self, masks: Tensor) -> list[Selection]:
        """One selection for each ``(N, R)`` mask, with a single wait for the device."""
        count, images, _ = masks.shape
        in_order = masks.transpose(1, 2).reshape(count, -1)  # sorted by anchor, so by level
        so_far = F.pad(in_order.cumsum(dim=1), (1, 0))  # how many of the first 0, 1, ... entries
        bounds = [0, *accumulate(self.level_sizes)]
        below = torch.stack([so_far[:, bound * images] for bound in bounds], dim=1).tolist()
        selections = []
        for running, ends in zip(so_far, below, strict=True):
            # nonzero() would wait for the number of entries, which is known by now
            nth = torch.arange(1, ends[-1] + 1, device=masks.device)
            entry = torch.searchsorted(running, nth) - 1
            counts = tuple(end - begin for begin, end in pairwise(ends))
            selections.append(
                Selection(entry // images, entry % images, counts, tuple(bounds[:-1]))
            )
        return selections

    @cached_property
    def _is_positive(self) -> Tensor:
        return (self.labels >= 0) & (self.labels < self.num_classes)

    @cached_property
    def num_positives(self) -> Tensor:
        """P, as a scalar tensor on the labels' device (no synchronisation)."""
        return self._is_positive.sum()

    @cached_property
    def _positives_and_ignored(self) -> list[Selection]:
        return self._select(torch.stack([self._is_positive, self.labels == IGNORE]))

    @property
    def positives(self) -> Selection:
        """The anchors assigned to an object."""
        return self._positives_and_ignored[0]

    @property
    def ignored(self) -> Selection:
        """The anchors that no loss may look at."""
        return self._positives_and_ignored[1]

    @cached_property
    def classes(self) -> Tensor:
        """``(P,)`` int64, the class of each positive."""
        return self.labels[self.positives.image, self.positives.anchor]

    def field(self, name: str) -> Tensor:
        """The matched ground truth's field (``gt_boxes``, ``gt_weight``, ...): ``(P, ...)``.

        Raises:
            KeyError: an image's ground truth has no such field.
        """
        values = [self._field_tensor(x, name) for x in self.instances]
        image, anchor = self.positives.image, self.positives.anchor
        offsets = accumulate((len(x) for x in self.instances[:-1]), initial=0)
        # filled on the device: a copy from the host would wait for it
        offset = torch.stack([self.matched.new_full((), x) for x in offsets])[image]
        return torch.cat(values)[self.matched[image, anchor] + offset]

    def optional_field(self, name: str) -> Tensor | None:
        """:meth:`field`, or None where no image's ground truth has it."""
        if not any(x.has(name) for x in self.instances):
            return None
        return self.field(name)

    @cached_property
    def weights(self) -> Tensor | None:
        """``(P,)`` of ``gt_weight``: how much each object counts; None is 1 for all."""
        return self.optional_field("gt_weight")

    @cached_property
    def gamma_shifts(self) -> Tensor | None:
        """``(P,)`` of ``gt_gamma_shift``: how much less than gamma each object is focused."""
        return self.optional_field("gt_gamma_shift")

    @cached_property
    def positive_scores(self) -> Tensor | None:
        """``(P,)`` of :attr:`scores`."""
        if self.scores is None:
            return None
        return self.scores[self.positives.image, self.positives.anchor]

    @staticmethod
    def _field_tensor(instances: Instances, name: str) -> Tensor:
        if not instances.has(name):
            have = ", ".join(instances.get_fields())
            raise KeyError(f"the ground truth has no field '{name}', only: {have}")
        value = instances.get(name)
        return value.tensor if isinstance(value, Boxes) else value
