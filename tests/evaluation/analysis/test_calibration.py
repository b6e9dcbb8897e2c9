"""Calibration: hotcoco's numbers, the Brier score, and where they are not defined."""

import numpy as np
import pytest
from support.coco_cases import by_hotcoco, random_case, scene

from retina_plugin.evaluation.analysis import analyse


def calibration_of(scores_and_hits):
    """Of detections of the given scores, each on an object of its own or beside it."""
    objects, detections = [], []
    for i, (score, hit) in enumerate(scores_and_hits):
        box = [100.0 * i, 0.0, 40.0, 40.0]
        objects.append((0, 0, box))
        detections.append((0, 0, box if hit else [100.0 * i, 500.0, 40.0, 40.0], score))
    return analyse(*scene(objects, detections), resamples=0).calibration


@pytest.mark.parametrize("iou", [0.5, 0.62])
def test_numbers_are_hotcoco(iou):
    truth, found = random_case()
    evaluation = by_hotcoco(truth, found)
    evaluation.params.iou_thrs = [iou]
    evaluation.evaluate()
    theirs = evaluation.calibration(n_bins=10, iou_threshold=iou)
    ours = analyse(truth, found, resamples=0, iou_thresh=iou).calibration
    assert ours.detections == theirs["num_detections"]
    assert [theirs["ece"], theirs["mce"]] == [ours.ECE, ours.MCE]


def test_bins_and_brier_are_what_their_definitions_say():
    some = [(s, h) for s in (0.25, 0.75) for h in ((s > 0.5), 0, 1, (s > 0.5))]
    result = calibration_of(some)
    scores, hits = (np.array(x, dtype=float) for x in zip(*some, strict=True))
    assert result.brier == pytest.approx(np.square(scores - hits).mean())
    assert [x.detections for x in result.bins] == [0, 0, 4, 0, 0, 0, 0, 4, 0, 0]
    assert (result.bins[2].score, result.bins[2].precision) == (0.25, 0.25)
    assert (result.bins[7].score, result.bins[7].precision) == (0.75, 0.75)
    assert result.ECE == result.MCE == 0


def test_ends_belong_to_the_first_and_last_bin():
    result = calibration_of([(0.0, 0), (0.1, 0), (1.0, 1)])
    assert [x.detections for x in result.bins] == [1, 1, *[0] * 7, 1]
    assert result.bins[3].score is result.bins[3].precision is None


def test_it_is_not_defined_without_probabilities_or_detections():
    assert calibration_of([(0.5, 1), (1.5, 1)]) is None
    empty = analyse(*scene([(0, 0, [0.0, 0.0, 9.0, 9.0])], []), resamples=0).calibration
    assert (empty.ECE, empty.MCE, empty.brier, empty.detections) == (None, None, None, 0)
