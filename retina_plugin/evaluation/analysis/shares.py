"""A part of a whole, and how sure it is."""

from __future__ import annotations

import math

Z = 1.959963984540054  # 97.5 % of a normal distribution is below


def share(part: int, whole: int) -> float | None:
    """``part / whole``; None of nothing."""
    return int(part) / int(whole) if whole else None


def wilson(part: int, whole: int) -> tuple[float | None, float | None]:
    """95 % interval of a share (Wilson 1927) of independent objects; None of nothing."""
    if not whole:
        return None, None
    n, p = int(whole), int(part) / int(whole)
    middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    width = Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    return max(0.0, middle - width), min(1.0, middle + width)


def found_and_right(*, objects: int, hit: int, miss: int) -> dict[str, int | float | None]:
    """What every breakdown says of some objects and of the detections that are theirs.

    Args:
        objects: that count.
        hit: detections that are right.
        miss: detections that are not.
    """
    low, high = wilson(hit, objects)
    return {
        "objects": objects,
        "detections": hit + miss,
        "recall": share(hit, objects),
        "recall_low": low,
        "recall_high": high,
        "precision": share(hit, hit + miss),
    }
