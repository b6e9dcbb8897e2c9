"""COCO's AP, AR and precision over recall, from matches: pycocotools' numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retina_plugin.evaluation.analysis.breakdowns import Number
from retina_plugin.evaluation.analysis.columns import Columns
from retina_plugin.evaluation.analysis.matching import Matches, View
from retina_plugin.evaluation.analysis.results import PRCurve

RECALLS = np.linspace(0.0, 1.0, 101)
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREAS = {  # square pixels
    "all": (0.0, 1e5**2),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e5**2),
}


def area_views(columns: Columns) -> list[View]:
    """COCO's four ranges of area."""
    area = columns.objects.area
    return [
        View(counts=(area >= low) & (area <= high), least_area=low, most_area=high)
        for low, high in AREAS.values()
    ]


@dataclass(kw_only=True)
class Precision:
    """Precision and score at each recall, of T thresholds, K classes and 101 recalls.

    Attributes:
        precision: (T, K, 101), NaN for a class without objects.
        score: (T, K, 101), 0 where the recall is not reached.
        recall: (T, K), the most there is.
        objects: (K,) that count.
    """

    precision: np.ndarray
    score: np.ndarray
    recall: np.ndarray
    objects: np.ndarray


def precision_over_recall(
    columns: Columns,
    matches: Matches,
    *,
    view: int = 0,
    detections: np.ndarray | None = None,
    objects: np.ndarray | None = None,
    thresholds: slice = slice(None),
) -> Precision:
    """COCO's ``accumulate`` for one view.

    Args:
        columns: the case.
        matches: of the case.
        view: which.
        detections: (D,) bool, those to look at. None: all.
        objects: (M,) bool, those to look at. None: all.
        thresholds: of IoU, which.
    """
    counting = matches.counts[view] if objects is None else matches.counts[view] & objects
    number = np.bincount(columns.objects.label[counting], minlength=len(columns.classes))
    found = columns.detections
    order = found.by_score if detections is None else found.by_score[detections[found.by_score]]
    hits, misses = matches.hits(view)[thresholds], matches.misses(view)[thresholds]
    return precision_of(found.label, found.score, hits, misses, number, order)


def precision_of(
    label: np.ndarray,
    score: np.ndarray,
    hits: np.ndarray,
    misses: np.ndarray,
    objects: np.ndarray,
    order: np.ndarray,
) -> Precision:
    """Precision over recall of detections that are judged already.

    Args:
        label: (D,) row of the class.
        score: (D,).
        hits: (T, D) bool.
        misses: (T, D) bool; what is neither is ignored.
        objects: (K,) that count.
        order: rows of the detections to look at, by class, then the surest first.
    """
    shape = (len(hits), len(objects))
    precision = np.full((*shape, len(RECALLS)), np.nan)
    scores = np.zeros((*shape, len(RECALLS)))
    recall = np.full(shape, np.nan)
    borders = np.searchsorted(label[order], np.arange(len(objects) + 1))
    for k in np.flatnonzero(objects):
        rows = order[borders[k] : borders[k + 1]]
        curves = _curves(hits[:, rows], misses[:, rows], score[rows], objects[k])
        precision[:, k], scores[:, k], recall[:, k] = curves
    return Precision(precision=precision, score=scores, recall=recall, objects=objects)


def _curves(
    hits: np.ndarray, misses: np.ndarray, scores: np.ndarray, objects: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision and score at each recall, (T, 101), and the largest recall, (T,)."""
    precision = np.zeros((len(hits), len(RECALLS)))
    score = np.zeros((len(hits), len(RECALLS)))
    if not len(scores):
        return precision, score, np.zeros(len(hits))
    right = hits.cumsum(axis=1, dtype=float)
    wrong = misses.cumsum(axis=1, dtype=float)
    recall = right / objects
    exact = right / (wrong + right + np.spacing(1))
    best = np.maximum.accumulate(exact[:, ::-1], axis=1)[:, ::-1]
    for t in range(len(hits)):
        places = np.searchsorted(recall[t], RECALLS, side="left")
        reached = places < len(scores)
        precision[t, reached] = best[t, places[reached]]
        score[t, reached] = scores[places[reached]]
    return precision, score, recall[:, -1]


def mean(values: np.ndarray) -> Number:
    """Mean of the defined ones; None where there is none."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else None


def twelve_numbers(
    columns: Columns, matches: Matches, precisions: list[Precision], max_detections: int
) -> dict[str, Number]:
    """COCO's summary: AP by IoU and area, AR by number of detections and area.

    Args:
        columns: the case.
        matches: with :func:`area_views` and COCO's thresholds first.
        precisions: of those views.
        max_detections: of an image and class.
    """
    coco = slice(len(IOU_THRESHOLDS))
    every, *areas = precisions
    numbers = {
        "AP": mean(every.precision[coco]),
        "AP50": mean(every.precision[matches.at(0.5)]),
        "AP75": mean(every.precision[matches.at(0.75)]),
    }
    for letter, one in zip("sml", areas, strict=True):
        numbers[f"AP{letter}"] = mean(one.precision[coco])
    for most in (1, 10):
        surest = columns.detections.rank < most
        limited = precision_over_recall(columns, matches, detections=surest, thresholds=coco)
        numbers[f"AR{most}"] = mean(limited.recall)
    numbers[f"AR{max_detections}"] = mean(every.recall[coco])
    for letter, one in zip("sml", areas, strict=True):
        numbers[f"AR{letter}"] = mean(one.recall[coco])
    return numbers


def pr_curve(precision: np.ndarray, score: np.ndarray, iou_thresh: float) -> PRCurve | None:
    """One curve, the mean of those defined.

    Args:
        precision: (K, 101), NaN where undefined.
        score: (K, 101).
        iou_thresh: of the curve.
    """
    defined = ~np.isnan(precision[:, 0])
    if not defined.any():
        return None
    return PRCurve(
        iou_thresh=iou_thresh,
        recall=RECALLS.tolist(),
        precision=precision[defined].mean(axis=0).tolist(),
        score=score[defined].mean(axis=0).tolist(),
    )
