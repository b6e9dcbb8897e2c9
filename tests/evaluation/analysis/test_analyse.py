"""The whole analysis: COCO's numbers, odd data, order, json."""

import json

import numpy as np
import pytest
from support.coco_cases import (
    CHANGES,
    by_pycocotools,
    random_case,
    scene,
    with_different_scores,
    without_objects,
)

from retina_plugin.evaluation.analysis import Analysis, analyse
from retina_plugin.workbench.benchmark.coco_evaluation import synthetic_case

NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def assert_coco_numbers(ours, theirs):
    values = [-1 if x is None else x for x in ours.coco.values()]
    np.testing.assert_allclose(values, theirs.stats, rtol=0, atol=1e-9)


@pytest.mark.parametrize("change", CHANGES)
def test_the_twelve_numbers_are_pycocotools(change):
    truth, found = random_case()
    change(truth, found)
    result = analyse(truth, found, resamples=0)
    assert list(result.coco) == NAMES
    assert_coco_numbers(result, by_pycocotools(truth, found))


@pytest.mark.parametrize("most", [300, 20])
def test_other_numbers_of_detections(most):
    truth, found = synthetic_case(images=3, detections=1500, classes=2)
    result = analyse(truth, found, resamples=0, max_detections=most)
    assert list(result.coco)[8] == f"AR{most}"
    assert_coco_numbers(result, by_pycocotools(truth, found, max_dets=(1, 10, most)))


def test_classes_are_pycocotools():
    truth, found = random_case()
    evaluation = by_pycocotools(truth, found).eval
    result = analyse(truth, found, resamples=0)
    for k, one in enumerate(result.classes):
        precision = evaluation["precision"][:, :, k, 0, -1]
        if precision.max() < 0:
            assert (one.objects, one.AP, one.pr50, one.thresholds) == (0, None, None, None)
            continue
        assert one.objects > 0
        numbers = [one.AP, one.AP50, one.AP75, one.AR]
        expected = [precision.mean(), *(precision[t].mean() for t in (0, 5))]
        recall = evaluation["recall"][:, k, 0, -1].mean()
        assert numbers == pytest.approx([*expected, recall], abs=1e-12)
        np.testing.assert_array_equal(one.pr50.precision, precision[0])
        np.testing.assert_array_equal(one.pr75.precision, precision[5])
        np.testing.assert_array_equal(one.pr50.score, evaluation["scores"][0, :, k, 0, -1])
    assert result.classes[-1].objects == 0
    means = np.mean([x.pr50.precision for x in result.classes if x.pr50], axis=0)
    np.testing.assert_allclose(result.overall.pr50.precision, means)
    assert np.mean(result.overall.pr50.precision) == pytest.approx(result.coco["AP50"])


def test_the_threshold_is_the_best_or_the_one_given():
    truth, found = random_case()
    best = analyse(truth, found, resamples=0)
    assert best.settings.score_thresh == best.overall.micro.threshold
    assert best.overall.at_threshold == best.overall.micro
    assert best.settings.score_thresh_is_best
    given = analyse(truth, found, resamples=0, score_thresh=0.9)
    assert given.overall.at_threshold.threshold == given.settings.score_thresh == 0.9
    assert given.overall.micro == best.overall.micro
    assert sum(x.true_positives for x in given.images) == given.overall.at_threshold.true_positives
    assert not given.settings.score_thresh_is_best


@pytest.mark.parametrize("iou", [0.5, 0.62, 0.75])
def test_another_iou_is_that_of_everything_that_coco_does_not_fix(iou):
    truth, found = random_case()
    result = analyse(truth, found, resamples=0, iou_thresh=iou)
    assert_coco_numbers(result, by_pycocotools(truth, found))
    point = result.overall.at_threshold
    counts = np.array(result.confusion.counts)
    hits = np.diag(counts)[:-1].sum()
    assert point.true_positives == hits == sum(x.true_positives for x in result.images)
    every = analyse(truth, found, resamples=0, iou_thresh=iou, score_thresh=0).overall
    half = analyse(truth, found, resamples=0, score_thresh=0).overall.at_threshold
    assert (every.at_threshold.true_positives < half.true_positives) == (iou > 0.5)


def test_the_order_of_detections_is_of_no_account():
    truth, found = random_case()
    with_different_scores(truth, found)
    expected = analyse(truth, found, resamples=10).to_dict()
    order = np.random.default_rng(0).permutation(len(found))
    assert analyse(truth, [found[i] for i in order], resamples=10).to_dict() == expected


def test_json_and_back():
    truth, found = random_case()
    for x in truth["images"]:
        x["site"] = "ab"[x["id"] % 2]
    result = analyse(truth, found, resamples=5, group_by=["site"])
    text = json.dumps(result.to_dict(), allow_nan=False)
    assert Analysis.from_dict(json.loads(text)) == result


def assert_plain(result):
    assert Analysis.from_dict(json.loads(json.dumps(result.to_dict(), allow_nan=False))) == result


def test_no_detections():
    truth, _ = random_case()
    result = analyse(truth, [])
    assert_plain(result)
    assert [result.coco[x] for x in NAMES] == [0.0] * 12
    assert result.settings.score_thresh is None
    assert result.notes == ["There are no detections."]
    point = result.overall.at_threshold
    assert (point.recall, point.precision, point.f1) == (0, None, 0)
    assert point.false_negatives == result.counts.objects
    assert result.errors[-1].count == result.counts.objects


def test_no_objects():
    truth, found = random_case()
    without_objects(truth, found)
    result = analyse(truth, found)
    assert_plain(result)
    assert set(result.coco.values()) == {None}
    assert "There are no objects that count: AP, recall and F1 are not defined." in result.notes
    assert {x.dAP for x in result.errors} == {None}
    assert (result.settings.score_thresh, result.best, result.worst) == (None, [], [])


def test_no_images_and_no_classes():
    result = analyse({"images": [], "annotations": [], "categories": []}, [])
    assert_plain(result)
    assert result.counts.images == 0


def test_one_class_one_image():
    box = [0.0, 0.0, 40.0, 40.0]
    result = analyse(*scene([(0, 0, box)], [(0, 0, box, 0.7)], classes=1))
    assert_plain(result)
    assert result.coco["AP"] == pytest.approx(1)
    assert result.settings.score_thresh == 0.7
    assert result.confusion.counts == [[1, 0], [0, 0]]


def test_scores_that_are_no_probabilities():
    truth, found = random_case()
    for x in found:
        x["score"] = 10 * x["score"] - 5
    result = analyse(truth, found, resamples=0)
    assert_coco_numbers(result, by_pycocotools(truth, found))
    assert result.calibration is None
    assert "no probabilities" in result.notes[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iou_thresh": 0.0}, "iou_thresh: expected above 0, at most 1, got 0.0"),
        ({"score_thresh": float("nan")}, "score_thresh: expected a finite number or None, got nan"),
        ({"max_detections": 0}, "max_detections: expected 1 or more, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        analyse(*random_case(), **options)
