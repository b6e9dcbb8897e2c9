"""Confusion of classes, with background."""

from __future__ import annotations

import numpy as np

from retina_plugin.evaluation.analysis.breakdowns import BACKGROUND, ConfusionMatrix
from retina_plugin.evaluation.analysis.coco_evaluation import Evaluation, Verdicts, part_of


def confusion_matrix(
    evaluation: Evaluation, verdicts: Verdicts, names: list[str]
) -> ConfusionMatrix:
    """Count which class the kept detections take the objects of each class for.

    The hits of the right class come first, by COCO's rule, so that the diagonal and the sums of
    rows and columns agree with recall and precision of the tables. hotcoco then matches the
    remaining detections and objects of any class, the highest score first. (Given all detections,
    it would let a detection of a wrong class take an object before a lower-scored one of the right
    class, and count detections of crowds as false.) Remaining objects are missed; remaining
    detections are of background, also those on an object that is taken.

    Args:
        evaluation: of the case.
        verdicts: of its detections, at the score threshold.
        names: of the classes.
    """
    columns = evaluation.columns
    rest = part_of(
        columns,
        verdicts.counts & ~verdicts.found,
        verdicts.miss & verdicts.kept,
    )
    counts = Evaluation(rest, evaluation.iou_thresh).confusion().astype(np.int64)
    right = np.bincount(
        columns.detections.label[verdicts.hit & verdicts.kept], minlength=len(names)
    )
    counts[np.arange(len(names)), np.arange(len(names))] += right
    return ConfusionMatrix(names=[*names, BACKGROUND], counts=counts.tolist())
