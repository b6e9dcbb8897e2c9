"""Intervals: the AP of resampled images is pycocotools' AP of a json that has them so often."""

import copy
from statistics import NormalDist

import numpy as np
import pytest
from support.coco_cases import by_pycocotools, random_case, scene, with_different_scores

from retina_plugin.evaluation.analysis import analyse, bootstrap
from retina_plugin.evaluation.analysis.coco_evaluation import Evaluation
from retina_plugin.evaluation.analysis.columns import read_columns


def repeated(truth, found, times):
    """Each image as often as ``times`` says, under other ids."""
    images, annotations, detections = [], [], []
    for image, n in zip(truth["images"], times, strict=True):
        for i in range(n):
            new = {"image_id": image["id"] * 100 + i}
            images.append({**image, "id": new["image_id"]})
            for rows, kept in ((truth["annotations"], annotations), (found, detections)):
                kept += [{**x, **new} for x in rows if x["image_id"] == image["id"]]
    for i, x in enumerate(annotations):
        x["id"] = i + 1
    return {**truth, "images": images, "annotations": annotations}, detections


@pytest.mark.parametrize("draw", range(3))
def test_a_resample_is_pycocotools_on_repeated_images(draw):
    truth, found = random_case()
    with_different_scores(truth, found)
    columns = read_columns(truth, found, max_detections=100)
    verdicts = Evaluation(columns).verdicts_of_coco()
    draws = np.random.default_rng(draw).multinomial(20, np.full(20, 1 / 20), size=3)
    draws[0] = 1  # as it is
    ours = bootstrap._resampled(columns, verdicts, draws.astype(np.int32))
    theirs = by_pycocotools(*repeated(copy.deepcopy(truth), found, draws[draw])).eval
    precision = theirs["precision"][..., 0, -1]
    expected = [x[x > -1].mean() for x in precision]
    np.testing.assert_allclose(ours[draw], expected, rtol=0, atol=1e-12)


def test_intervals_hold_the_number_and_narrow_with_more_images():
    small, large = (
        analyse(*random_case(), resamples=100),
        analyse(*repeated(*random_case(), [8] * 20), resamples=100),
    )
    for name in ("AP", "AP50"):
        x = small.intervals[name]
        assert x.low < small.coco[name] < x.high
        assert len(x.samples) == 100
        wide, narrow = (y.intervals[name].high - y.intervals[name].low for y in (small, large))
        assert narrow < 0.6 * wide


def test_the_seed_decides_the_resamples():
    truth, found = random_case()
    same = [analyse(truth, found, resamples=20, seed=seed).intervals for seed in (1, 1, 2)]
    assert same[0] == same[1] != same[2]


def test_chunks_change_nothing(monkeypatch):
    expected = analyse(*random_case(), resamples=20).intervals
    monkeypatch.setattr(bootstrap, "NUMBERS_AT_ONCE", 1500)
    assert analyse(*random_case(), resamples=20).intervals == expected


def test_there_is_none_where_nothing_defines_it():
    truth, found = random_case()
    assert analyse(truth, found, resamples=0).intervals == {}
    box = [0.0, 0.0, 9.0, 9.0]
    assert analyse(*scene([(0, 0, box)], []), resamples=9).intervals == {}  # one image
    assert analyse(*scene([], [(0, 0, box, 0.9)], images=3), resamples=9).intervals == {}
    # some resamples have no object at all
    some = analyse(*scene([(0, 0, box)], [], images=3), resamples=50).intervals["AP"]
    assert 0 < len(some.samples) < 50
    one = [analyse(*scene([(0, 0, box)], [], images=3), resamples=1, seed=i) for i in range(9)]
    assert {len(x.intervals) for x in one} == {0, 2}


def test_without_bias_an_interval_is_the_quantiles():
    samples = np.arange(1001) / 1000
    x = bootstrap.interval(0.5, samples)
    assert (x.low, x.high) == pytest.approx((0.025, 0.975), abs=1e-9)
    same = bootstrap.interval(0.25, np.full(9, 0.25))
    assert (same.low, same.high) == (0.25, 0.25)


def test_samples_that_are_too_high_move_the_interval_down():
    """Normal samples, too high by half of their spread: the interval is that of the number."""
    samples = np.array([NormalDist(0.5, 1).inv_cdf((i + 0.5) / 4000) for i in range(4000)])
    x = bootstrap.interval(0.0, samples)
    # bias-corrected quantiles of N(0.5, 1) are at 0.5 + 2 * -0.5 -+ 1.96
    assert (x.low, x.high) == pytest.approx((-2.46, 1.46), abs=0.05)
    outside = bootstrap.interval(-9.0, samples)
    assert outside.low <= outside.high == pytest.approx(samples.min(), abs=0.2)
