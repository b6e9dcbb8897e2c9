"""From a COCO json and detections to all numbers of the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from retina_plugin.evaluation.analysis.bootstrap import intervals
from retina_plugin.evaluation.analysis.calibration import calibrate
from retina_plugin.evaluation.analysis.class_results import class_results, overall, tallies
from retina_plugin.evaluation.analysis.coco_evaluation import Evaluation, Verdicts
from retina_plugin.evaluation.analysis.coco_numbers import twelve_numbers
from retina_plugin.evaluation.analysis.columns import Columns, class_names, read_columns
from retina_plugin.evaluation.analysis.confusion import confusion_matrix
from retina_plugin.evaluation.analysis.error_kinds import error_kinds
from retina_plugin.evaluation.analysis.field_groups import field_groups
from retina_plugin.evaluation.analysis.groups import group_results
from retina_plugin.evaluation.analysis.image_results import (
    best_images,
    image_results,
    worst_images,
)
from retina_plugin.evaluation.analysis.operating_points import best_threshold
from retina_plugin.evaluation.analysis.results import Analysis, Counts, Settings
from retina_plugin.evaluation.analysis.sizes import coco_sizes, octaves


def analyse(
    truth: dict[str, Any],
    detections: Sequence[dict[str, Any]],
    *,
    group_by: Sequence[str] = (),
    iou_thresh: float = 0.5,
    score_thresh: float | None = None,
    max_detections: int = 100,
    ranges: int = 4,
    resamples: int = 200,
    examples: int = 12,
    ranked_images: int = 12,
    seed: int = 0,
) -> Analysis:
    """Everything that the report says about detections; nothing of the input is changed.

    Args:
        truth: the content of a COCO json.
        detections: in COCO's result format, as in ``coco_instances_results.json``.
        group_by: fields of the json's images or annotations, see
            :func:`~retina_plugin.evaluation.analysis.field_groups.field_groups`.
        iou_thresh: from which a detection finds an object, for all that COCO does not fix.
        score_thresh: of confusion, images, groups and sizes. None: the one that is best for F1
            over all classes.
        max_detections: of an image and class, as ``COCOeval.params.maxDets[-1]``.
        ranges: that numbers of a field are put into.
        resamples: of the images, for the intervals; 0 for none.
        examples: of each kind of error.
        ranked_images: the worst and the best.
        seed: of the resamples.

    Raises:
        ValueError: the json or the detections are no such, see
            :func:`~retina_plugin.evaluation.analysis.columns.read_columns`, or a field to group by
            is unknown, or a threshold is out of its range.
    """
    _check_settings(iou_thresh, score_thresh, max_detections)
    columns = read_columns(truth, detections, max_detections=max_detections)
    fields = [field_groups(columns, name, ranges) for name in group_by]
    names = class_names(columns)
    evaluation = Evaluation(columns, iou_thresh)
    verdicts = evaluation.verdicts()
    every, counts = tallies(columns, verdicts)
    threshold = best_threshold(every) if score_thresh is None else score_thresh
    verdicts = evaluation.keep(verdicts, threshold)
    coco = twelve_numbers(evaluation, max_detections)
    images = image_results(columns, verdicts)
    return Analysis(
        settings=Settings(
            iou_thresh=iou_thresh,
            score_thresh=threshold,
            score_thresh_is_best=score_thresh is None,
            max_detections=max_detections,
            group_by=list(group_by),
            resamples=resamples,
            seed=seed,
        ),
        counts=_counts(columns, verdicts),
        notes=_notes(columns, verdicts),
        coco=coco,
        intervals=intervals(evaluation, coco, resamples=resamples, seed=seed),
        overall=overall(evaluation, every, counts, threshold),
        classes=class_results(evaluation, names, counts, threshold),
        confusion=confusion_matrix(evaluation, verdicts, names),
        errors=error_kinds(evaluation, verdicts, names, examples),
        sizes=coco_sizes(evaluation, verdicts, coco, threshold),
        octaves=octaves(columns, verdicts),
        groupings=[group_results(evaluation, verdicts, field, threshold) for field in fields],
        calibration=calibrate(evaluation, verdicts),
        images=images,
        worst=worst_images(images, ranked_images),
        best=best_images(images, ranked_images),
    )


def _check_settings(iou_thresh: float, score_thresh: float | None, max_detections: int) -> None:
    if not 0 < iou_thresh <= 1:
        raise ValueError(f"iou_thresh: expected above 0, at most 1, got {iou_thresh}")
    if score_thresh is not None and not np.isfinite(score_thresh):
        raise ValueError(f"score_thresh: expected a finite number or None, got {score_thresh}")
    if max_detections < 1:
        raise ValueError(f"max_detections: expected 1 or more, got {max_detections}")


def _counts(columns: Columns, verdicts: Verdicts) -> Counts:
    objects = int(verdicts.counts.sum())
    with_objects = np.unique(columns.objects.image[verdicts.counts])
    return Counts(
        images=len(columns.images),
        empty_images=len(columns.images) - len(with_objects),
        objects=objects,
        ignored_objects=len(columns.objects) - objects,
        detections=len(columns.detections),
        ignored_detections=int((~(verdicts.hit | verdicts.miss)).sum()),
        kept_detections=int(((verdicts.hit | verdicts.miss) & verdicts.kept).sum()),
    )


def _notes(columns: Columns, verdicts: Verdicts) -> list[str]:
    notes = list(columns.notes)
    score = columns.detections.score
    if not verdicts.counts.any():
        notes.append("There are no objects that count: AP, recall and F1 are not defined.")
    if not len(score):
        notes.append("There are no detections.")
    elif score.min() < 0 or score.max() > 1:
        notes.append(
            f"Scores go from {score.min():g} to {score.max():g}: they are no probabilities, "
            "so there is no calibration."
        )
    return notes
