"""Recall and precision by size of the object."""

from __future__ import annotations

import numpy as np

from retina_plugin.evaluation.analysis.breakdowns import Number, SizeBin
from retina_plugin.evaluation.analysis.coco_evaluation import AREAS, Evaluation, Verdicts
from retina_plugin.evaluation.analysis.columns import Columns
from retina_plugin.evaluation.analysis.shares import shares

SMALLEST_OCTAVE = 8.0  # pixels of side


def coco_sizes(
    evaluation: Evaluation,
    verdicts: Verdicts,
    coco: dict[str, Number],
    score_thresh: float | None,
) -> list[SizeBin]:
    """All, small, medium and large, by COCO's rule for ranges of area.

    Args:
        evaluation: of the case.
        verdicts: with objects of all sizes, at the score threshold.
        coco: COCO's summary.
        score_thresh: None keeps no detection.
    """
    sizes = []
    for name, (low, high) in AREAS.items():
        of_size = (
            verdicts
            if name == "all"
            else evaluation.keep(evaluation.verdicts(area=name), score_thresh)
        )
        sizes.append(
            SizeBin(
                name=name,
                low=low**0.5,
                high=None if high == AREAS["all"][1] else high**0.5,
                AP=coco["AP" if name == "all" else f"AP{name[0]}"],
                **of_size.shares(),
            )
        )
    return sizes


def octaves(columns: Columns, verdicts: Verdicts) -> list[SizeBin]:
    """Sides below 8 pixels, 8 to 16, and on by factors of two to the largest object.

    A hit has the size of its object, what hits nothing its own; what is smaller than the smallest
    object or larger than the largest counts in the first or the last.

    Args:
        columns: the case.
        verdicts: with objects of all sizes.
    """
    place = _octave(columns.objects.area)
    hits, misses = verdicts.hit & verdicts.kept, verdicts.miss & verdicts.kept
    there = place[verdicts.counts]
    if not len(there):
        return []
    first, last = int(there.min()), int(there.max())
    sizes = np.arange(first, last + 1)
    objects = np.bincount(there - first, minlength=len(sizes))
    hit = np.bincount(place[verdicts.object[hits]] - first, minlength=len(sizes))
    own = np.clip(_octave(columns.detections.area[misses]), first, last)
    miss = np.bincount(own - first, minlength=len(sizes))
    bins = []
    for i, size in enumerate(sizes):
        low = float(SMALLEST_OCTAVE * 2.0 ** (size - 1)) if size else 0.0
        high = float(SMALLEST_OCTAVE * 2.0**size)
        counts = shares(objects=int(objects[i]), hit=int(hit[i]), miss=int(miss[i]))
        bins.append(SizeBin(name=f"{low:g}-{high:g}", low=low, high=high, AP=None, **counts))
    return bins


def _octave(area: np.ndarray) -> np.ndarray:
    """0 below 8 pixels of side, 1 below 16, ..."""
    with np.errstate(divide="ignore"):
        place = np.floor(np.log2(np.sqrt(np.maximum(area, 0)) / SMALLEST_OCTAVE)) + 1
    return np.maximum(place, 0).astype(np.int64)
