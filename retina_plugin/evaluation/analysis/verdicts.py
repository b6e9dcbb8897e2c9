"""Each detection and object judged at one IoU and one score threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retina_plugin.evaluation.analysis.columns import Columns
from retina_plugin.evaluation.analysis.matching import Matches


@dataclass(kw_only=True)
class Verdicts:
    """Hit, miss or ignored, for D detections and M objects.

    Attributes:
        hit: (D,) bool, finds an object that counts.
        miss: (D,) bool, finds nothing, or nothing new.
        object: (D,) row of the object found, -1 for none.
        kept: (D,) bool, at the score threshold.
        counts: (M,) bool, objects that count.
        reached: (M,) bool, those that any detection finds.
        found: (M,) bool, those that a kept detection finds.
    """

    hit: np.ndarray
    miss: np.ndarray
    object: np.ndarray
    kept: np.ndarray
    counts: np.ndarray
    reached: np.ndarray
    found: np.ndarray


def judge(
    columns: Columns,
    matches: Matches,
    *,
    iou_thresh: float,
    score_thresh: float | None,
    view: int = 0,
) -> Verdicts:
    """Look up the matches of one view at two thresholds; without a score threshold none is kept."""
    t = matches.at(iou_thresh)
    score = columns.detections.score
    kept = score >= (np.inf if score_thresh is None else score_thresh)
    return Verdicts(
        hit=matches.hits(view)[t],
        miss=matches.misses(view)[t],
        object=matches.object[view, t],
        kept=kept,
        counts=matches.counts[view],
        reached=matches.found(view, t, np.ones_like(kept)),
        found=matches.found(view, t, kept),
    )
