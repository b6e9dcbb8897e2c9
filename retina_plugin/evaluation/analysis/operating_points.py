"""Precision, recall and F1 over the score threshold, and the threshold that is best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retina_plugin.evaluation.analysis.results import OperatingPoint, ThresholdCurve

GRID = 101


@dataclass(kw_only=True)
class Tally:
    """Hits and misses at or above each score, of one class or of all together.

    Attributes:
        scores: (n,) the different scores, the largest first.
        right: (n,) hits of the detections with that score or more.
        wrong: (n,) misses of them.
        objects: that count.
    """

    scores: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    objects: int

    def at(self, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Hits and misses kept at each threshold."""
        kept = np.searchsorted(-self.scores, -np.asarray(thresholds), side="right")
        return np.r_[0, self.right][kept], np.r_[0, self.wrong][kept]


def tally(scores: np.ndarray, hits: np.ndarray, misses: np.ndarray, objects: int) -> Tally:
    """Count hits and misses down the scores; detections of one score stand or fall together.

    Args:
        scores: (n,) in any order.
        hits: (n,) bool.
        misses: (n,) bool; what is neither is ignored.
        objects: that count.
    """
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    last = np.flatnonzero(np.r_[scores[1:] != scores[:-1], True]) if len(scores) else []
    return Tally(
        scores=scores[last],
        right=hits[order].cumsum()[last],
        wrong=misses[order].cumsum()[last],
        objects=objects,
    )


def fractions(
    right: np.ndarray, wrong: np.ndarray, objects: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1; NaN where nothing is kept, or nothing is there."""
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = right / (right + wrong)
        recall = right / np.float64(objects)
        f1 = 2 * right / (right + wrong + objects)
    return precision, recall, f1


def point(counts: Tally, threshold: float | None) -> OperatingPoint:
    """What holds at one threshold; None keeps nothing."""
    right, wrong = (0, 0) if threshold is None else map(int, counts.at(np.array(threshold)))
    precision, recall, f1 = fractions(np.array(right), np.array(wrong), counts.objects)
    return OperatingPoint(
        threshold=threshold,
        precision=number(precision),
        recall=number(recall),
        f1=number(f1),
        true_positives=right,
        false_positives=wrong,
        false_negatives=counts.objects - right,
    )


def best_threshold(counts: Tally) -> float | None:
    """The score from which on F1 is largest, the highest of equals; None where nothing is hit."""
    if not counts.objects or not counts.right.any():
        return None
    _, _, f1 = fractions(counts.right, counts.wrong, counts.objects)
    return float(counts.scores[f1.argmax()])


def grid(scores: np.ndarray) -> np.ndarray:
    """101 thresholds: 0 to 1, or over the range of scores that leave it."""
    low, high = (scores.min(), scores.max()) if len(scores) else (0.0, 1.0)
    if low < 0 or high > 1:
        return np.linspace(low, high, GRID)
    return np.linspace(0.0, 1.0, GRID)


def curve(counts: Tally, thresholds: np.ndarray) -> ThresholdCurve:
    """Precision, recall and F1 at each threshold."""
    return _curve(thresholds, *fractions(*counts.at(thresholds), counts.objects))


def macro_curve(classes: list[Tally], thresholds: np.ndarray) -> ThresholdCurve:
    """Mean over the classes with objects; a class that keeps nothing is left out of precision."""
    return _curve(thresholds, *_macro(classes, thresholds))


def _curve(
    thresholds: np.ndarray, precision: np.ndarray, recall: np.ndarray, f1: np.ndarray
) -> ThresholdCurve:
    return ThresholdCurve(
        threshold=thresholds.tolist(),
        precision=[number(x) for x in precision],
        recall=[number(x) for x in recall],
        f1=[number(x) for x in f1],
    )


def _macro(
    classes: list[Tally], thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows = [fractions(*c.at(thresholds), c.objects) for c in classes if c.objects]
    if not rows:
        return tuple(np.full(len(thresholds), np.nan) for _ in range(3))
    return tuple(_mean(np.stack(part)) for part in zip(*rows, strict=True))


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the rows of what is defined; NaN where nothing is."""
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(defined, values, 0.0).sum(axis=0) / defined.sum(axis=0)


def macro_point(classes: list[Tally]) -> OperatingPoint:
    """The one threshold at which the classes' mean F1 is largest, over all different scores."""
    scores = [c.scores for c in classes if c.objects]
    candidates = np.unique(np.concatenate(scores))[::-1] if scores else np.zeros(0)
    if not len(candidates):
        return OperatingPoint(threshold=None, precision=None, recall=None, f1=None)
    total = np.zeros(len(candidates))
    for c in classes:
        if c.objects:
            total += fractions(*c.at(candidates), c.objects)[2]
    threshold = candidates[[total.argmax()]]
    precision, recall, f1 = (number(x[0]) for x in _macro(classes, threshold))
    return OperatingPoint(threshold=float(threshold[0]), precision=precision, recall=recall, f1=f1)


def mean_point(points: list[OperatingPoint]) -> OperatingPoint:
    """Mean of the classes' numbers, each at its own threshold."""
    parts = {
        part: _mean_of([getattr(x, part) for x in points]) for part in ("precision", "recall", "f1")
    }
    return OperatingPoint(threshold=None, **parts)


def _mean_of(values: list[float | None]) -> float | None:
    defined = [x for x in values if x is not None]
    return sum(defined) / len(defined) if defined else None


def number(x: float) -> float | None:
    """A plain number; None for NaN."""
    return None if np.isnan(x) else float(x)
