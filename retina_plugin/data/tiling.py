"""Cut a large image and its boxes into tiles that cover it evenly.

To learn from, and to make data sets of: `tile_windows`, which share exactly `overlap` pixels and
may be larger than asked for. To look at: `covering_spans`, never larger and aligned to the
network's grid, which share at least `overlap`.

Boxes are XYXY in pixels with continuous edges: pixel i spans [i, i + 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np


class Window(NamedTuple):
    """A rectangle of pixels [x0, x1) x [y0, y1) of an image."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def width(self) -> int:
        """Pixels across."""
        return self.x1 - self.x0

    @property
    def height(self) -> int:
        """Pixels down."""
        return self.y1 - self.y0


@dataclass(frozen=True)
class TileBoxes:
    """The boxes of one tile, in the tile's own pixels.

    `boxes` (M, 4); `crowd` (M,) bool: too little of the box is in the tile to demand that it be
    found, or to count its finding as false; `index` (M,) row in the image's boxes; `slivers`: how
    many remainders were too thin to keep.
    """

    boxes: np.ndarray
    crowd: np.ndarray
    index: np.ndarray
    slivers: int


def spans(length: int, size: int, overlap: int = 0) -> list[tuple[int, int]]:
    """Split [0, length) into the number of spans that brings each nearest to `size`.

    All spans are equally long but for one pixel of rounding, neighbours share exactly `overlap`
    pixels, the first starts at 0 and the last ends at `length`: no thin remainder at the end.

    Raises:
        ValueError: unless `0 <= overlap < size` and `length > 0`.
    """
    _check(length, size, overlap)
    if length <= size:
        return [(0, length)]
    count = max(1, round((length - overlap) / (size - overlap)))
    edges = [round(i * (length - overlap) / count) for i in range(count + 1)]
    return [(a, b + overlap) for a, b in pairwise(edges)]


def covering_spans(
    length: int, size: int, overlap: int = 0, stride: int = 1
) -> list[tuple[int, int]]:
    """The fewest spans of at most `size` that cover [0, length) and share at least `overlap`.

    They start evenly spread at multiples of `stride`, or of its half, quarter, ... that fits into
    `size - overlap`: there a network's grid lies on the tile as it lies on the whole image. All are
    `size` long but the last, which ends with the image and may lack up to `stride - 1` pixels.

    Raises:
        ValueError: unless `0 <= overlap < size` and `length > 0`.
    """
    _check(length, size, overlap)
    if length <= size:
        return [(0, length)]
    while stride > size - overlap:
        stride //= 2
    last = -(-(length - size) // stride)  # all in strides, rounded up
    count = -(-last // ((size - overlap) // stride))
    starts = [i * last // count * stride for i in range(count + 1)]
    return [(start, min(start + size, length)) for start in starts]


def tile_windows(region: Window, size: int, overlap: int = 0) -> list[Window]:
    """Tiles of about `size` x `size` pixels that cover `region` evenly, row by row; see `spans`."""
    return [
        Window(region.x0 + x0, region.y0 + y0, region.x0 + x1, region.y0 + y1)
        for y0, y1 in spans(region.height, size, overlap)
        for x0, x1 in spans(region.width, size, overlap)
    ]


def clip_boxes(
    boxes: np.ndarray, window: Window, min_visible: float = 0.5, min_side: float = 2.0
) -> TileBoxes:
    """The boxes (M, 4) that meet `window`, clipped to it and moved to its corner.

    A box with more than `min_visible` of its area in the window is kept as an object, so that at
    0.5 and above it is an object in at most one of several tiles that do not overlap; one with
    less is marked crowd, so that nothing is lost in silence. What is left of a cut box with a side
    under `min_side` pixels is dropped and counted.

    Raises:
        ValueError: `min_visible` outside [0, 1), or a box without area.
    """
    if not 0 <= min_visible < 1:
        raise ValueError(f"expected a share 0 <= min_visible < 1, got {min_visible}")
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    if (sides <= 0).any():
        bad = boxes[(sides <= 0).any(axis=1)][0].tolist()
        raise ValueError(f"expected boxes x0, y0, x1, y1 with x0 < x1 and y0 < y1, got {bad}")
    low, high = np.array(window[:2]), np.array(window[2:])
    clipped = np.concatenate(
        [np.clip(boxes[:, :2], low, high), np.clip(boxes[:, 2:], low, high)], axis=1
    )
    left = clipped[:, 2:] - clipped[:, :2]
    meets = (left > 0).all(axis=1)
    thin = meets & (left < np.minimum(min_side, sides)).any(axis=1)
    index = np.flatnonzero(meets & ~thin)
    visible = left[index].prod(axis=1) / sides[index].prod(axis=1)
    return TileBoxes(
        clipped[index] - np.tile(low, 2), visible <= min_visible, index, int(thin.sum())
    )


def _check(length: int, size: int, overlap: int) -> None:
    if not 0 <= overlap < size:
        raise ValueError(f"expected 0 <= overlap < tile size, got {overlap} and {size}")
    if length <= 0:
        raise ValueError(f"expected an image side of at least one pixel, got {length}")
