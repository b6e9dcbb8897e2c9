"""The numbers of each class, and of all together."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from retina_plugin.evaluation.analysis.coco_evaluation import Evaluation, Verdicts
from retina_plugin.evaluation.analysis.coco_numbers import AT, mean, pr_curve
from retina_plugin.evaluation.analysis.columns import Columns
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
from retina_plugin.evaluation.analysis.results import ClassResult, Overall


def tallies(columns: Columns, verdicts: Verdicts) -> tuple[Tally, list[Tally]]:
    """Hits and misses down the scores, of all classes together and of each."""
    found, truth = columns.detections, columns.objects
    hits, misses = verdicts.hit, verdicts.miss
    kinds = len(columns.classes)
    number = np.bincount(truth.label[verdicts.counts], minlength=kinds)
    borders = np.searchsorted(found.label, np.arange(kinds + 1))
    classes = [
        tally(found.score[a:b], hits[a:b], misses[a:b], int(number[k]))
        for k, (a, b) in enumerate(pairwise(borders))
    ]
    return tally(found.score, hits, misses, int(number.sum())), classes


def class_results(
    evaluation: Evaluation, names: list[str], counts: list[Tally], score_thresh: float | None
) -> list[ClassResult]:
    """The numbers of each class."""
    columns, precision = evaluation.columns, evaluation.precision[..., 0]
    thresholds = grid(columns.detections.score)
    detections = np.bincount(columns.detections.label, minlength=len(names))
    return [
        ClassResult(
            category_id=columns.classes[k]["id"],
            name=name,
            objects=counts[k].objects,
            detections=int(detections[k]),
            AP=mean(precision[..., k]),
            AP50=mean(precision[AT[0.5], :, k]),
            AP75=mean(precision[AT[0.75], :, k]),
            AR=mean(evaluation.recall[:, k, 0, -1]),
            best=point(counts[k], best_threshold(counts[k])),
            at_threshold=point(counts[k], score_thresh),
            pr50=pr_curve(evaluation, 0.5, slice(k, k + 1)),
            pr75=pr_curve(evaluation, 0.75, slice(k, k + 1)),
            thresholds=curve(counts[k], thresholds) if counts[k].objects else None,
        )
        for k, name in enumerate(names)
    ]


def overall(
    evaluation: Evaluation, every: Tally, counts: list[Tally], score_thresh: float | None
) -> Overall:
    """The numbers of all classes together."""
    thresholds = grid(evaluation.columns.detections.score)
    with_objects = [x for x in counts if x.objects]
    return Overall(
        micro=point(every, best_threshold(every)),
        macro=macro_point(with_objects),
        own_thresholds=mean_point([point(x, best_threshold(x)) for x in with_objects]),
        at_threshold=point(every, score_thresh),
        pr50=pr_curve(evaluation, 0.5),
        pr75=pr_curve(evaluation, 0.75),
        thresholds_micro=curve(every, thresholds),
        thresholds_macro=macro_curve(with_objects, thresholds),
    )
