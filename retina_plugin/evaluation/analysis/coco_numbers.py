"""COCO's summary and precision-recall curves, read from an evaluation."""

from __future__ import annotations

import numpy as np

from retina_plugin.evaluation.analysis.breakdowns import Number
from retina_plugin.evaluation.analysis.coco_evaluation import (
    RECALLS,
    Evaluation,
)
from retina_plugin.evaluation.analysis.results import PRCurve

AT = {0.5: 0, 0.75: 5}  # rows of COCO's IoU thresholds
AREAS = dict(zip("sml", (1, 2, 3), strict=True))


def mean(values: np.ndarray) -> Number:
    """Mean of the defined values; None where there is none."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else None


def twelve_numbers(evaluation: Evaluation, max_detections: int) -> dict[str, Number]:
    """COCO's summary: AP by IoU and area, AR by number of detections and area.

    Args:
        evaluation: of the case.
        max_detections: per image and class, which names the ninth number.
    """
    precision, recall = evaluation.precision, evaluation.recall
    every = precision[..., 0]
    return {
        "AP": mean(every),
        "AP50": mean(every[AT[0.5]]),
        "AP75": mean(every[AT[0.75]]),
        **{f"AP{size}": mean(precision[..., area]) for size, area in AREAS.items()},
        "AR1": mean(recall[..., 0, 0]),
        "AR10": mean(recall[..., 0, 1]),
        f"AR{max_detections}": mean(recall[..., 0, 2]),
        **{f"AR{size}": mean(recall[..., area, 2]) for size, area in AREAS.items()},
    }


def pr_curve(
    evaluation: Evaluation, iou_thresh: float, classes: slice = slice(None)
) -> PRCurve | None:
    """Mean precision-recall curve of some classes; None where none of them has objects."""
    row = AT[iou_thresh]
    precision = evaluation.precision[row, :, classes, 0]  # (101, K)
    defined = ~np.isnan(precision[0])
    if not defined.any():
        return None
    return PRCurve(
        iou_thresh=iou_thresh,
        recall=RECALLS.tolist(),
        precision=precision[:, defined].mean(axis=1).tolist(),
        score=evaluation.scores[row, :, classes, 0][:, defined].mean(axis=1).tolist(),
    )
