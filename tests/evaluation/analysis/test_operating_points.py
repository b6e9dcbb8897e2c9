"""Precision, recall and F1 by counting anew at each threshold."""

import numpy as np
import pytest

from retina_plugin.evaluation.analysis.operating_points import (
    best_threshold,
    curve,
    grid,
    macro_curve,
    macro_point,
    mean_point,
    point,
    tally,
)


def some(seed, n=60, objects=25, ties=True):
    random = np.random.default_rng(seed)
    scores = random.random(n).round(1 if ties else 9)
    hits = random.random(n) < 0.3
    misses = ~hits & (random.random(n) < 0.8)  # the others are ignored
    return scores, hits, misses, objects


def naive(case, threshold):
    scores, hits, misses, objects = case
    kept = scores >= threshold
    right, wrong = (hits & kept).sum(), (misses & kept).sum()
    precision = right / (right + wrong) if right + wrong else None
    total = right + wrong + objects
    return precision, right / objects, 2 * right / total


@pytest.mark.parametrize("ties", [True, False])
def test_a_curve_counts_what_each_threshold_keeps(ties):
    case = some(0, ties=ties)
    thresholds = grid(case[0])
    np.testing.assert_allclose(thresholds, np.arange(101) / 100)
    ours = curve(tally(*case), thresholds)
    for i, threshold in enumerate(thresholds):
        expected = naive(case, threshold)
        assert (ours.precision[i], ours.recall[i], ours.f1[i]) == pytest.approx(expected)


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_the_best_threshold_has_the_largest_f1_of_all(ties, seed):
    case = some(seed, ties=ties)
    best = best_threshold(tally(*case))
    f1 = {t: naive(case, t)[2] for t in np.unique(case[0])}
    assert f1[best] == max(f1.values())
    assert best == max(t for t in f1 if f1[t] == f1[best])
    at_best = point(tally(*case), best)
    assert (at_best.precision, at_best.recall, at_best.f1) == pytest.approx(naive(case, best))
    assert at_best.true_positives + at_best.false_negatives == 25


def test_the_macro_threshold_has_the_largest_mean_f1():
    cases = [some(seed, objects=10 + seed) for seed in range(3)]
    best = macro_point([tally(*x) for x in cases])
    f1 = {t: np.mean([naive(x, t)[2] for x in cases]) for t in np.arange(11) / 10}
    assert best.f1 == pytest.approx(max(f1.values()))
    assert best.f1 == pytest.approx(f1[round(best.threshold, 1)])
    means = macro_curve([tally(*x) for x in cases], np.array([best.threshold]))
    assert means.f1 == [best.f1]
    assert best.recall == pytest.approx(np.mean([naive(x, best.threshold)[1] for x in cases]))


def test_thresholds_of_their_own_are_as_good_or_better():
    tallies = [tally(*some(seed)) for seed in range(3)]
    own = mean_point([point(x, best_threshold(x)) for x in tallies])
    assert own.f1 >= macro_point(tallies).f1
    assert own.threshold is None


def test_nothing_found_and_nothing_there():
    none = np.zeros(0)
    nothing_found = tally(none, none > 0, none > 0, 3)
    assert best_threshold(nothing_found) is None
    empty = point(nothing_found, None)
    assert (empty.precision, empty.recall, empty.f1, empty.false_negatives) == (None, 0, 0, 3)
    only_misses = tally(np.array([0.5]), np.array([False]), np.array([True]), 3)
    assert best_threshold(only_misses) is None
    nothing_there = tally(np.array([0.5]), np.array([False]), np.array([True]), 0)
    there = point(nothing_there, 0.5)
    assert (there.precision, there.recall, there.f1) == (0, None, 0)
    assert macro_point([]).f1 is None
    assert macro_curve([], np.array([0.5])).f1 == [None]


def test_the_grid_follows_scores_that_are_no_probabilities():
    np.testing.assert_allclose(grid(np.array([-3.0, 7.0]))[[0, -1]], [-3, 7])
