"""Sizes and ratios of anchors that fit the boxes of a data set, and what they gain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from detectron2.config import CfgNode
from tqdm import tqdm

from retina_plugin.workbench.anchors.anchor_set import DEFAULT, OCTAVE, AnchorSet, product_of
from retina_plugin.workbench.anchors.coverage import Coverage, coverage_of
from retina_plugin.workbench.anchors.pattern_search import (
    Boxes,
    Shape,
    search_levels,
    search_shared,
)
from retina_plugin.workbench.anchors.seen_boxes import SeenBoxes
from retina_plugin.workbench.anchors.summary import Row, row

SEARCHED_BOXES = 3000
LEAST_VISIBLE = 0.5  # what a crop leaves less of says nothing about the objects' shape
FIRST_SIZES = (2.0, 4.0)  # in strides, where searches begin
GENERATORS = {"octave": OCTAVE, "default": DEFAULT}


@dataclass(frozen=True)
class Gain:
    """The same boxes with the config's anchors and with the fitted ones."""

    before: Row
    after: Row


@dataclass(frozen=True)
class FittedAnchors:
    """The result of :func:`fit_anchors`.

    Attributes:
        anchors: the set, fitted to all boxes.
        per_cell: how many anchors a cell has on each level, before and after.
        whole: of all boxes of which at least half is seen.
        held_out: of one half of the images, with anchors fitted to the other half; None where
            there is one image.
    """

    anchors: AnchorSet
    per_cell: tuple[list[int], list[int]]
    whole: Gain
    held_out: Gain | None


def fit_anchors(
    cfg: CfgNode,
    cover: Coverage,
    *,
    generator: str | None = None,
    anchors_per_cell: int | None = None,
    per_level: bool = False,
    seed: int = 0,
) -> FittedAnchors:
    """Search the sizes and ratios with the highest mean IoU plus share of boxes that are reached.

    Every way to make the number of anchors of sizes and ratios is tried. Sides stay within 1 and 8
    strides of their level. Distances to the grid of positions count, in the search as in the
    numbers that are reported.

    Args:
        cfg: of the coverage.
        cover: what :func:`coverage_of` returned.
        generator: ``octave`` or ``default``; by default the config's, if it is one of the two.
        anchors_per_cell: on every level; by default as many as the config has, at most.
        per_level: sizes and ratios of its own for each level.
        seed: of the choice of boxes to search with, and of the halves.

    Raises:
        ValueError: an unknown generator, or no anchors.
    """
    name = _generator(cfg, generator)
    per_cell = max(cover.grid.num_anchors) if anchors_per_cell is None else anchors_per_cell
    if per_cell < 1:
        raise ValueError(f"anchors_per_cell is 1 or more, got {per_cell}")
    boxes = cover.seen.where(is_shape(cover.seen))
    rng = np.random.default_rng(seed)
    first, second = _halves(boxes, rng)
    search = _Search(cfg, cover, name, per_cell, per_level, rng)
    held_out = None
    if first is not None:
        fitted = search(first, "fitting to one half")
        held_out = search.gain(second, fitted)
    fitted = search(boxes, "fitting to all")
    after = [len(x) for x in fitted.cells(cfg, cover.grid.strides)]
    return FittedAnchors(
        anchors=fitted,
        per_cell=(cover.grid.num_anchors, after),
        whole=search.gain(boxes, fitted),
        held_out=held_out,
    )


def is_shape(seen: SeenBoxes) -> np.ndarray:
    """``(M,)`` bool: boxes of which at least half is seen; all where there are none."""
    mask = seen.visible >= LEAST_VISIBLE
    return mask if mask.any() else np.ones_like(mask)


def _generator(cfg: CfgNode, generator: str | None) -> str:
    if generator is None:
        own = cfg.MODEL.ANCHOR_GENERATOR.NAME
        return own if own in GENERATORS.values() else DEFAULT
    if generator not in GENERATORS:
        raise ValueError(f"generator is one of {', '.join(GENERATORS)}, got {generator!r}")
    return GENERATORS[generator]


def _halves(
    boxes: SeenBoxes, rng: np.random.Generator
) -> tuple[SeenBoxes, SeenBoxes] | tuple[None, None]:
    """The boxes of a random half of the images, and of the other."""
    images = rng.permutation(np.unique(boxes.record))
    if len(images) < 2:
        return None, None
    is_first = np.isin(boxes.record, images[: len(images) // 2])
    return boxes.where(is_first), boxes.where(~is_first)


class _Search:
    """From boxes to a set of anchors."""

    def __init__(
        self,
        cfg: CfgNode,
        cover: Coverage,
        generator: str,
        per_cell: int,
        per_level: bool,
        rng: np.random.Generator,
    ) -> None:
        self.cfg, self.cover, self.generator = cfg, cover, generator
        self.per_cell, self.per_level, self.rng = per_cell, per_level, rng

    def __call__(self, seen: SeenBoxes, what: str) -> AnchorSet:
        grid, threshold = self.cover.grid, self.cover.threshold
        some = self.rng.permutation(len(seen))[:SEARCHED_BOXES]
        boxes = Boxes.of(seen.boxes[some], seen.image_size[some], grid)
        found = [
            (*search_shared(boxes, shape, start, threshold), shape)
            for shape, start in tqdm(list(self._starts(boxes)), what, delay=2, disable=None)
        ]
        _, x, shape = max(found, key=lambda result: result[0])
        levels = [x] * len(grid.strides)
        if self.per_level:
            _, levels = search_levels(boxes, shape, x, threshold)
        return self._as_set(shape, levels)

    def _starts(self, boxes: Boxes) -> Iterator[tuple[Shape, np.ndarray]]:
        """Ways to make the number of anchors, each with several places to begin."""
        own = product_of(self.cover.grid.cells[0])
        ratio = np.log(boxes.height / boxes.width)
        for sizes in range(1, self.per_cell + 1):
            ratios, rest = divmod(self.per_cell, sizes)
            if rest:
                continue
            shape = Shape(sizes, ratios, self.generator == OCTAVE)
            spread = np.quantile(ratio, (np.arange(ratios) + 0.5) / ratios)
            for first in FIRST_SIZES:
                steps = np.log(first) + np.log(2) * np.arange(sizes) / sizes
                yield shape, np.concatenate([steps[: shape.free_sizes], spread])
            if own is not None and (len(own[0]), len(own[1])) == (sizes, ratios):
                steps = np.log(own[0] / boxes.strides[0])
                yield shape, np.concatenate([steps[: shape.free_sizes], np.log(own[1])])

    def _as_set(self, shape: Shape, levels: list[np.ndarray]) -> AnchorSet:
        values = [shape.values(x) for x in levels]
        strides = self.cover.grid.strides
        sizes = [s * stride for (s, _), stride in zip(values, strides, strict=True)]
        return AnchorSet.of(
            self.generator,
            [x[: shape.free_sizes].tolist() for x in sizes],
            [ratios.tolist() for _, ratios in values],
            shape.sizes if shape.is_octave else 1,
        )

    def gain(self, boxes: SeenBoxes, fitted: AnchorSet) -> Gain:
        """Measured on the anchors that the generators themselves make."""
        grid = self.cover.grid
        grids = grid, grid.with_cells(fitted.cells(self.cfg, grid.strides))
        return Gain(
            *(
                row(coverage_of(self.cfg, boxes=boxes, grid=g), name)
                for g, name in zip(grids, ("before", "after"), strict=True)
            )
        )
