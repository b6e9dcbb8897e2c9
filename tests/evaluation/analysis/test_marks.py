"""The boxes to draw have the verdicts of the analysis."""

from collections import Counter

import pytest
from support.coco_cases import random_case, scene, with_different_scores

from retina_plugin.evaluation.analysis import analyse, mark_boxes

HERE, NEAR, FAR = ([x, 0.0, 40.0, 40.0] for x in (0.0, 20.0, 200.0))


@pytest.mark.parametrize("iou", [0.5, 0.75])
def test_verdicts_add_up_to_those_of_the_image(iou):
    truth, found = random_case()
    with_different_scores(truth, found)
    result = analyse(truth, found, resamples=0, iou_thresh=iou)
    thresholds = {"score_thresh": result.settings.score_thresh, "iou_thresh": iou}
    marked = mark_boxes(truth, found, result.worst, **thresholds)
    assert set(marked) == set(result.worst)
    for image in result.images:
        if image.image_id in marked:
            verdicts = Counter(x.verdict for x in marked[image.image_id])
            assert verdicts["hit"] == verdicts["found"] == image.true_positives
            assert verdicts["wrong"] == image.false_positives
            assert verdicts["missed"] == image.false_negatives


def test_a_scene():
    objects = [(0, 0, HERE), (0, 1, FAR), (1, 0, HERE), (0, 0, [300.0, 0.0, 90.0, 90.0])]
    detections = [
        (0, 0, HERE, 0.9),
        (0, 0, NEAR, 0.8),
        (0, 0, [310.0, 0.0, 9.0, 9.0], 0.7),
        (0, 1, HERE, 0.1),
        (1, 0, HERE, 0.9),
    ]
    truth, found = scene(objects, detections, images=2)
    truth["annotations"][3]["iscrowd"] = 1
    (boxes,) = mark_boxes(truth, found, [0], score_thresh=0.5).values()
    rows = [(x.verdict, x.class_name, x.score, x.mistake) for x in boxes]
    assert rows == [
        ("found", "a", None, None),
        ("missed", "b", None, None),
        ("crowd", "a", None, None),
        ("ignored", "a", 0.7, None),
        ("wrong", "a", 0.8, "localisation"),
        ("hit", "a", 0.9, None),
    ]
    assert boxes[0].box == boxes[-1].box == [0, 0, 40, 40]
    kept_none = mark_boxes(truth, found, [0], score_thresh=None)[0]
    assert [x.verdict for x in kept_none] == ["missed", "missed", "crowd"]


def test_an_unknown_image_is_refused():
    truth, found = random_case()
    with pytest.raises(ValueError, match=r"images \[999\] are not in the ground truth"):
        mark_boxes(truth, found, [1, 999], score_thresh=0.5)
