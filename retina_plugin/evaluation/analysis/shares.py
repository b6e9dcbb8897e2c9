"""Recall and precision of a part of the data, with the uncertainty of the recall."""

from __future__ import annotations

import math

from retina_plugin.evaluation.analysis.breakdowns import Number

Z = 1.959963984540054  # 97.5 % of a normal distribution is below


def shares(*, objects: int, hit: int, miss: int) -> dict[str, int | Number]:
    """Counts, recall with its 95 % interval, and precision, as every breakdown shows them.

    Args:
        objects: that count.
        hit: detections that are right.
        miss: detections that are wrong.
    """
    low, high = wilson(hit, objects)
    return {
        "objects": objects,
        "detections": hit + miss,
        "recall": hit / objects if objects else None,
        "recall_low": low,
        "recall_high": high,
        "precision": hit / (hit + miss) if hit + miss else None,
    }


def wilson(part: int, whole: int) -> tuple[Number, Number]:
    """95 % interval of a share of independent trials (Wilson 1927); None of no trials."""
    if not whole:
        return None, None
    n, p = whole, part / whole
    middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    width = Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    return max(0.0, middle - width), min(1.0, middle + width)
