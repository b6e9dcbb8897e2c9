"""How far scores are probabilities."""

from __future__ import annotations

import numpy as np

from retina_plugin.evaluation.analysis.breakdowns import Calibration, CalibrationBin


def calibrate(scores: np.ndarray, hits: np.ndarray, bins: int = 10) -> Calibration | None:
    """Bins of equal width; a score on a border belongs to the bin above it, 1 to the last.

    Args:
        scores: (n,) of the detections that count.
        hits: (n,) bool.
        bins: from 0 to 1.

    Returns:
        None where a score leaves 0..1.
    """
    if len(scores) and not (scores.min() >= 0 and scores.max() <= 1):
        return None
    edges = np.arange(bins + 1) / bins
    place = np.minimum((scores * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        score = np.bincount(place, scores, bins) / count
        precision = np.bincount(place, hits, bins) / count
    filled = count > 0
    gaps = np.abs(score - precision)[filled]
    return Calibration(
        bins=[
            CalibrationBin(
                low=float(edges[i]),
                high=float(edges[i + 1]),
                detections=int(count[i]),
                score=float(score[i]) if filled[i] else None,
                precision=float(precision[i]) if filled[i] else None,
            )
            for i in range(bins)
        ],
        detections=len(scores),
        ECE=float((gaps * count[filled]).sum() / len(scores)) if len(scores) else None,
        MCE=float(gaps.max()) if len(scores) else None,
        brier=float(((scores - hits) ** 2).mean()) if len(scores) else None,
    )
