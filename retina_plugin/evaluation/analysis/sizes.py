"""Recall and precision by size of the object."""

from __future__ import annotations

import numpy as np

from retina_plugin.evaluation.analysis.breakdowns import Number, SizeBin
from retina_plugin.evaluation.analysis.coco_numbers import AREAS
from retina_plugin.evaluation.analysis.columns import Columns
from retina_plugin.evaluation.analysis.shares import share, wilson
from retina_plugin.evaluation.analysis.verdicts import Verdicts

SMALLEST_OCTAVE = 8.0  # pixels of side


def coco_sizes(views: list[Verdicts], APs: list[Number]) -> list[SizeBin]:
    """All, small, medium and large, by COCO's rule for ranges of area.

    Args:
        views: verdicts in COCO's four ranges.
        APs: COCO's, of the four.
    """
    sizes = []
    for (name, (low, high)), verdicts, ap in zip(AREAS.items(), views, APs, strict=True):
        end = None if high == AREAS["all"][1] else high**0.5
        hit = int((verdicts.hit & verdicts.kept).sum())
        miss = int((verdicts.miss & verdicts.kept).sum())
        objects = int(verdicts.counts.sum())
        sizes.append(_bin(name, low**0.5, end, objects=objects, hit=hit, miss=miss, AP=ap))
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
        low = SMALLEST_OCTAVE * 2.0 ** (size - 1) if size else 0.0
        high = SMALLEST_OCTAVE * 2.0**size
        counts = {"objects": int(objects[i]), "hit": int(hit[i]), "miss": int(miss[i])}
        bins.append(_bin(f"{low:g}-{high:g}", float(low), float(high), **counts))
    return bins


def _octave(area: np.ndarray) -> np.ndarray:
    """0 below 8 pixels of side, 1 below 16, ..."""
    with np.errstate(divide="ignore"):
        place = np.floor(np.log2(np.sqrt(np.maximum(area, 0)) / SMALLEST_OCTAVE)) + 1
    return np.maximum(place, 0).astype(np.int64)


def _bin(
    name: str,
    low: float,
    high: float | None,
    *,
    objects: int,
    hit: int,
    miss: int,
    AP: Number = None,
) -> SizeBin:
    recall_low, recall_high = wilson(hit, objects)
    return SizeBin(
        name=name,
        low=low,
        high=high,
        objects=objects,
        detections=hit + miss,
        AP=AP,
        recall=share(hit, objects),
        recall_low=recall_low,
        recall_high=recall_high,
        precision=share(hit, hit + miss),
    )
