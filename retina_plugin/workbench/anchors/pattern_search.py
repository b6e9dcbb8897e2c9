"""The best sizes and ratios of anchors for given boxes: a search in logarithms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from retina_plugin.workbench.anchors.anchor_grid import AnchorGrid

# Sides of anchors in strides of their level. Larger ones would lie denser and so meet more boxes,
# but a level's features see only so far: the paper has 4 to 6.3, anchors for small objects 2.
STRIDES = (1.0, 8.0)
RATIOS = (0.125, 8.0)
FIRST_STEP, LAST_STEP = 0.35, 0.01  # of a logarithm: 42 % and 1 % of a side


@dataclass(frozen=True, eq=False)
class Boxes:
    """M boxes relative to the grids of L levels, which is all that their IoU depends on.

    Attributes:
        width, height: ``(M, 1)``.
        across, down: ``(M, L)`` distance of the box's centre from that of the nearest anchor.
        strides: ``(L,)``.
    """

    width: np.ndarray
    height: np.ndarray
    across: np.ndarray
    down: np.ndarray
    strides: np.ndarray

    @classmethod
    def of(cls, boxes: np.ndarray, image_sizes: np.ndarray, grid: AnchorGrid) -> Boxes:
        """From ``(M, 4)`` boxes and the ``(M, 2)`` height and width of their images."""
        sides = boxes[:, 2:] - boxes[:, :2]
        centre = (boxes[:, 2:] + boxes[:, :2]) / 2
        away = []
        for stride in grid.strides:
            last = grid.map_sizes(image_sizes, stride)[:, ::-1] - 1
            cell = np.clip(np.round(centre / stride - grid.offset), 0, last)
            away.append(np.abs(centre - (cell + grid.offset) * stride))
        away = np.stack(away, axis=2).astype(np.float32)  # (M, 2, L)
        strides = np.array(grid.strides, dtype=np.float32)
        return cls(sides[:, :1], sides[:, 1:], away[:, 0], away[:, 1], strides)

    def best(self, level: int, sizes: np.ndarray, ratios: np.ndarray) -> np.ndarray:
        """``(M,)`` largest IoU with a level's anchors: all pairs of sizes and ratios."""
        root = np.sqrt(ratios)
        width = (sizes[:, None] / root).reshape(-1).astype(np.float32)
        height = (sizes[:, None] * root).reshape(-1).astype(np.float32)
        overlap = _overlap(width, self.width, self.across[:, level, None])
        overlap *= _overlap(height, self.height, self.down[:, level, None])
        union = width * height + self.width * self.height - overlap
        return (overlap / union).max(axis=1)


def _overlap(anchor: np.ndarray, box: np.ndarray, away: np.ndarray) -> np.ndarray:
    """Of two intervals whose middles are ``away`` from each other."""
    return np.minimum(np.minimum(anchor, box), (anchor + box) / 2 - away).clip(min=0)


@dataclass(frozen=True, eq=False)
class Shape:
    """What the numbers of a search mean: logarithms of sizes in strides, then of ratios.

    Attributes:
        sizes, ratios: how many of each a cell has.
        is_octave: the sizes are one number, the first of an octave's even steps.
    """

    sizes: int
    ratios: int
    is_octave: bool

    @property
    def free_sizes(self) -> int:
        """How many numbers the sizes are."""
        return 1 if self.is_octave else self.sizes

    def values(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sizes in strides, all of them, and ratios."""
        sizes, ratios = np.exp(x[: self.free_sizes]), np.exp(x[self.free_sizes :])
        if self.is_octave:
            sizes = sizes[0] * 2 ** (np.arange(self.sizes) / self.sizes)
        return sizes, ratios

    def clip(self, x: np.ndarray) -> np.ndarray:
        """Within what a level's features can see."""
        low, high = np.log(STRIDES)
        if self.is_octave:
            high -= np.log(2) * (self.sizes - 1) / self.sizes
        sizes = np.clip(x[: self.free_sizes], low, high)
        return np.concatenate([sizes, np.clip(x[self.free_sizes :], *np.log(RATIOS))])


def score(iou: np.ndarray, threshold: float) -> float:
    """What is searched for: the mean of the best IoUs plus the share that reach the threshold."""
    return float(iou.mean() + (iou >= threshold).mean())


def search_shared(
    boxes: Boxes, shape: Shape, start: np.ndarray, threshold: float
) -> tuple[float, np.ndarray]:
    """The same sizes, in strides, and ratios on all levels. Returns the score and the numbers."""

    def value(x: np.ndarray) -> float:
        sizes, ratios = shape.values(x)
        levels = [boxes.best(i, sizes * s, ratios) for i, s in enumerate(boxes.strides)]
        return score(np.max(levels, axis=0), threshold)

    return climb(value, shape.clip(start), shape)


def search_levels(
    boxes: Boxes, shape: Shape, start: np.ndarray, threshold: float
) -> tuple[float, list[np.ndarray]]:
    """Each level its own, beginning with ``start`` on all: two rounds through the levels."""
    x = [start] * len(boxes.strides)

    def best(level: int, numbers: np.ndarray) -> np.ndarray:
        sizes, ratios = shape.values(numbers)
        return boxes.best(level, sizes * boxes.strides[level], ratios)

    columns = [best(level, start) for level in range(len(x))]
    value = score(np.max(columns, axis=0), threshold)
    for level in [*range(len(x))] * 2:
        others = np.max([*columns[:level], *columns[level + 1 :], 0 * columns[0]], axis=0)

        def with_level(
            numbers: np.ndarray, level: int = level, others: np.ndarray = others
        ) -> float:
            return score(np.maximum(others, best(level, numbers)), threshold)

        value, x[level] = climb(with_level, x[level], shape)
        columns[level] = best(level, x[level])
    return value, x


def climb(
    value: Callable[[np.ndarray], float], start: np.ndarray, shape: Shape
) -> tuple[float, np.ndarray]:
    """Go where the value is higher, by smaller and smaller steps.

    A step moves one number, or all sizes together.
    """
    x, best, step = start, value(start), FIRST_STEP
    moves = np.eye(len(x))
    if shape.free_sizes > 1:
        moves = np.vstack([np.arange(len(x)) < shape.free_sizes, moves])
    while step > LAST_STEP:
        improved = False
        for move in moves:
            for sign in (1, -1):
                moved = shape.clip(x + sign * step * move)
                found = value(moved)
                if found > best + 1e-6:
                    x, best, improved = moved, found, True
                    break
        if not improved:
            step /= 2
    return best, x
