"""The numbers of each class, and of all together."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from retina_plugin.evaluation.analysis.coco_numbers import (
    IOU_THRESHOLDS,
    Precision,
    mean,
    pr_curve,
)
from retina_plugin.evaluation.analysis.columns import Columns
from retina_plugin.evaluation.analysis.matching import Matches
from retina_plugin.evaluation.analysis.operating_points import (
    Tally,
    best_threshold,
    curve,
    grid,
    macro_curve,
    macro_point,
    mean_point,
    point,
    tally,
)
from retina_plugin.evaluation.analysis.results import ClassResult, Overall, PRCurve

COCO = slice(len(IOU_THRESHOLDS))


def tallies(columns: Columns, matches: Matches, threshold: int) -> tuple[Tally, list[Tally]]:
    """Hits and misses down the scores, of all classes together and of each."""
    found, truth = columns.detections, columns.objects
    hits, misses = matches.hits()[threshold], matches.misses()[threshold]
    kinds = len(columns.classes)
    number = np.bincount(truth.label[matches.counts[0]], minlength=kinds)
    borders = np.searchsorted(found.label, np.arange(kinds + 1))
    classes = [
        tally(found.score[a:b], hits[a:b], misses[a:b], int(number[k]))
        for k, (a, b) in enumerate(pairwise(borders))
    ]
    return tally(found.score, hits, misses, int(number.sum())), classes


def class_results(
    columns: Columns,
    names: list[str],
    precision: Precision,
    matches: Matches,
    counts: list[Tally],
    at_threshold: dict[str, Any],
) -> list[ClassResult]:
    """The numbers of each class."""
    thresholds = grid(columns.detections.score)
    detections = np.bincount(columns.detections.label, minlength=len(names))
    at50, at75 = matches.at(0.5), matches.at(0.75)
    results = []
    for k, name in enumerate(names):
        there = precision.objects[k] > 0
        results.append(
            ClassResult(
                category_id=columns.classes[k]["id"],
                name=name,
                objects=int(precision.objects[k]),
                detections=int(detections[k]),
                AP=mean(precision.precision[COCO, k]),
                AP50=mean(precision.precision[at50, k]),
                AP75=mean(precision.precision[at75, k]),
                AR=mean(precision.recall[COCO, k]),
                best=point(counts[k], best_threshold(counts[k])),
                at_threshold=point(counts[k], at_threshold["score_thresh"]),
                pr50=_pr(precision, at50, 0.5, slice(k, k + 1)),
                pr75=_pr(precision, at75, 0.75, slice(k, k + 1)),
                thresholds=curve(counts[k], thresholds) if there else None,
            )
        )
    return results


def overall(
    columns: Columns,
    precision: Precision,
    matches: Matches,
    every: Tally,
    counts: list[Tally],
    at_threshold: dict[str, Any],
) -> Overall:
    """The numbers of all classes together."""
    thresholds = grid(columns.detections.score)
    with_objects = [x for x in counts if x.objects]
    return Overall(
        micro=point(every, best_threshold(every)),
        macro=macro_point(with_objects),
        own_thresholds=mean_point([point(x, best_threshold(x)) for x in with_objects]),
        at_threshold=point(every, at_threshold["score_thresh"]),
        pr50=_pr(precision, matches.at(0.5), 0.5),
        pr75=_pr(precision, matches.at(0.75), 0.75),
        thresholds_micro=curve(every, thresholds),
        thresholds_macro=macro_curve(with_objects, thresholds),
    )


def _pr(
    precision: Precision, threshold: int, iou_thresh: float, classes: slice = slice(None)
) -> PRCurve | None:
    """Mean curve of some classes at one threshold of IoU."""
    return pr_curve(
        precision.precision[threshold, classes], precision.score[threshold, classes], iou_thresh
    )
