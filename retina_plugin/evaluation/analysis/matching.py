"""Which detection finds which object: COCO's rule, for all thresholds and ignored sets at once.

pycocotools answers for one image, class and range of areas a call, with dicts of small arrays, and
hotcoco is optional here. The analysis also needs groups of objects, and all matches side by side.
This gives pycocotools' matches (compared in the tests, with crowds, ties and area limits) for any
sets of ignored objects in one pass. IoU is pycocotools' own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask

from retina_plugin.evaluation.analysis.columns import Columns

NEARLY_ONE = 1 - 1e-10  # pycocotools' largest threshold


@dataclass(kw_only=True)
class View:
    """Which objects count.

    Attributes:
        counts: (M,) bool; the others are ignored, and a detection that fits only them as well.
        least_area: a detection that hits nothing is ignored below it, in square pixels.
        most_area: and above it.
    """

    counts: np.ndarray
    least_area: float = 0.0
    most_area: float = np.inf


@dataclass(kw_only=True)
class Matches:
    """What each detection hits, for V views and T thresholds.

    Attributes:
        thresholds: (T,) of IoU.
        counts: (V, M) bool, of the views.
        object: (V, T, D) row of the object hit, -1 for none.
        ignored: (V, T, D) bool: hits an ignored object, or nothing while out of the view's areas.
    """

    thresholds: np.ndarray
    counts: np.ndarray
    object: np.ndarray
    ignored: np.ndarray

    def at(self, threshold: float) -> int:
        """Index of a threshold of IoU."""
        (index,) = np.flatnonzero(np.isclose(self.thresholds, threshold))
        return int(index)

    def hits(self, view: int = 0) -> np.ndarray:
        """(T, D) bool: finds an object that counts."""
        return (self.object[view] >= 0) & ~self.ignored[view]

    def misses(self, view: int = 0) -> np.ndarray:
        """(T, D) bool: finds nothing, or nothing new, and counts."""
        return (self.object[view] < 0) & ~self.ignored[view]

    def found(self, view: int, threshold: int, kept: np.ndarray) -> np.ndarray:
        """(M,) bool: objects that one of the ``kept`` detections, (D,) bool, hits."""
        rows = self.object[view, threshold]
        found = np.zeros(self.counts.shape[1], dtype=bool)
        found[rows[kept & (rows >= 0)]] = True
        return found & self.counts[view]


def match(columns: Columns, views: Sequence[View], thresholds: np.ndarray) -> Matches:
    """Match as COCO does: the surest detection first takes the free object that it overlaps most.

    An object that counts goes before one that is ignored, whatever the overlap; of equal overlaps
    the later object in the json. A crowd can be hit any number of times.

    Args:
        columns: the case.
        views: which objects count.
        thresholds: (T,) of IoU.
    """
    objects, detections = columns.objects, columns.detections
    counts = np.stack([view.counts & ~objects.crowd for view in views])
    shape = (len(views), len(thresholds), len(detections))
    hit = np.full(shape, -1, dtype=np.int32)
    limits = np.minimum(thresholds, NEARLY_ONE)
    for found, truth in _pairs(columns):
        crowd = objects.crowd[truth]
        overlaps = mask.iou(detections.box[found], objects.box[truth], crowd.astype(np.uint8))
        near = np.flatnonzero(overlaps.max(axis=1) >= limits.min())
        if len(near):
            taken = _assign(overlaps[near], limits, counts[:, truth], crowd)
            hit[..., found[near]] = np.where(taken >= 0, truth[taken], -1)
    bounds = np.array([[view.least_area, view.most_area] for view in views])[:, :, None]
    outside = (detections.area < bounds[:, 0]) | (detections.area > bounds[:, 1])  # (V, D)
    ignored = (hit < 0) & outside[:, None]
    for v in range(len(views)):
        ignored[v] |= (hit[v] >= 0) & ~counts[v][hit[v]] if len(objects) else False
    return Matches(thresholds=thresholds, counts=counts, object=hit, ignored=ignored)


def _pairs(columns: Columns) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of detections (the surest first) and objects of the same image and class."""
    objects, detections = columns.objects, columns.detections
    number = len(columns.images)
    by_key = _runs(objects.label * number + objects.image)
    for key, rows in _runs(detections.label * number + detections.image).items():
        if key in by_key:
            yield rows, by_key[key]


def _runs(keys: np.ndarray) -> dict[int, np.ndarray]:
    """Rows of each key, in their order."""
    order = np.argsort(keys, kind="stable")
    values, starts = np.unique(keys[order], return_index=True)
    return dict(zip(values.tolist(), np.split(order, starts[1:]), strict=True)) if len(keys) else {}


def _assign(
    overlaps: np.ndarray, limits: np.ndarray, counts: np.ndarray, crowd: np.ndarray
) -> np.ndarray:
    """(V, T, n) column of the object that each of n detections takes, -1 for none.

    Args:
        overlaps: (n, m) IoU, the surest detection first.
        limits: (T,) least IoU.
        counts: (V, m) bool.
        crowd: (m,) bool.
    """
    backwards = slice(None, None, -1)  # argmax finds the first of equals, COCO takes the last
    overlaps, counts, crowd = overlaps[:, backwards], counts[:, backwards], crowd[backwards]
    shape = (len(counts), len(limits))
    free = np.ones((*shape, len(crowd)), dtype=bool)
    taken = np.empty((*shape, len(overlaps)), dtype=np.int64)
    v, t = np.indices(shape)
    for i, overlap in enumerate(overlaps):
        possible = free & (overlap >= limits[:, None])
        first = possible & counts[:, None, :]  # what counts goes before what is ignored
        possible = np.where(first.any(axis=-1, keepdims=True), first, possible)
        best = np.where(possible, overlap, -1.0).argmax(axis=-1)
        fits = possible[v, t, best]
        taken[..., i] = np.where(fits, len(crowd) - 1 - best, -1)
        free[v, t, best] &= ~fits | crowd[best]
    return taken
