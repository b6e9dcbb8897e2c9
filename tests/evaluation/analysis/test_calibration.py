"""Calibration is hotcoco's, and what its definition says."""

import numpy as np
import pytest
from support.coco_cases import by_hotcoco, random_case

from retina_plugin.evaluation.analysis import analyse
from retina_plugin.evaluation.analysis.calibration import calibrate


def test_numbers_are_hotcoco():
    truth, found = random_case()
    theirs = by_hotcoco(truth, found).calibration(n_bins=10, iou_threshold=0.5)
    ours = analyse(truth, found, resamples=0).calibration
    assert ours.detections == theirs["num_detections"]
    both = [ours.ECE, ours.MCE]
    assert both == pytest.approx([theirs["ece"], theirs["mce"]], abs=1e-12)
    filled = [x for x in theirs["bins"] if x["count"]]
    assert [x.detections for x in ours.bins if x.detections] == [x["count"] for x in filled]
    precision = [x.precision for x in ours.bins if x.detections]
    assert precision == pytest.approx([x["avg_accuracy"] for x in filled])


def test_a_calibrated_detector_has_no_error():
    scores = np.repeat([0.25, 0.75], 4)
    hits = np.array([1, 0, 0, 0, 1, 1, 1, 0], dtype=bool)
    result = calibrate(scores, hits, bins=2)
    assert result.ECE == result.MCE == 0
    assert result.brier == pytest.approx(0.1875)  # p (1 - p), as of a fair forecast
    assert [x.detections for x in result.bins] == [4, 4]


def test_ends_belong_to_the_first_and_last_bin():
    result = calibrate(np.array([0.0, 0.1, 1.0]), np.array([False, False, True]))
    assert [x.detections for x in result.bins] == [1, 1, *[0] * 7, 1]
    assert result.bins[3].score is None


def test_scores_that_are_no_probabilities_have_none():
    assert calibrate(np.array([0.5, 1.5]), np.array([True, True])) is None
    empty = calibrate(np.zeros(0), np.zeros(0, dtype=bool))
    assert (empty.ECE, empty.MCE, empty.brier, empty.detections) == (None, None, None, 0)
