"""How far scores are probabilities."""

from __future__ import annotations

import numpy as np

from retina_plugin.evaluation.analysis.breakdowns import Calibration, CalibrationBin
from retina_plugin.evaluation.analysis.coco_evaluation import Evaluation, Verdicts

BINS = 10


def calibrate(evaluation: Evaluation, verdicts: Verdicts) -> Calibration | None:
    """hotcoco's calibration at the IoU threshold of the evaluation, and the Brier score.

    Bins have equal width; a score on a border belongs to the bin above it, 1 to the last.

    Returns:
        None where a score is outside 0..1.
    """
    scores = evaluation.columns.detections.score
    if len(scores) and not (scores.min() >= 0 and scores.max() <= 1):
        return None
    result = evaluation.at_iou.calibration(n_bins=BINS, iou_threshold=evaluation.iou_thresh)
    judged = verdicts.hit | verdicts.miss
    some = bool(judged.any())
    return Calibration(
        bins=[
            CalibrationBin(
                low=x["bin_lower"],
                high=x["bin_upper"],
                detections=x["count"],
                score=x["avg_confidence"] if x["count"] else None,
                precision=x["avg_accuracy"] if x["count"] else None,
            )
            for x in result["bins"]
        ],
        detections=result["num_detections"],
        ECE=result["ece"] if some else None,
        MCE=result["mce"] if some else None,
        brier=float(np.square(scores - verdicts.hit)[judged].mean()) if some else None,
    )
