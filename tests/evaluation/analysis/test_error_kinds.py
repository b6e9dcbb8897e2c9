"""Kinds of errors: a scene for each, hotcoco's counts on random data, and what crowds change."""

import pytest
from support.coco_cases import by_hotcoco, random_case, scene, with_different_scores
from support.coco_cases import with_wrong_classes as wrong_classes

from retina_plugin.evaluation.analysis import analyse

HERE = [0.0, 0.0, 40.0, 40.0]
NEAR = [20.0, 0.0, 40.0, 40.0]  # IoU 1/3 with HERE
FAR = [200.0, 0.0, 40.0, 40.0]
KINDS = {
    "classification": "Cls",
    "localisation": "Loc",
    "both": "Both",
    "duplicate": "Dupe",
    "background": "Bkg",
    "missed": "Miss",
}
SCENES = {
    "classification": (
        [(0, 0, HERE), (0, 1, FAR)],
        [(0, 0, FAR, 0.9)],
        ["classification", "missed"],
    ),
    "localisation": ([(0, 0, HERE)], [(0, 0, NEAR, 0.9)], ["localisation"]),
    "both": ([(0, 0, HERE)], [(0, 1, NEAR, 0.9)], ["both", "missed"]),
    "duplicate": ([(0, 0, HERE)], [(0, 0, HERE, 0.9), (0, 0, HERE, 0.8)], ["duplicate"]),
    "background": ([(0, 0, HERE)], [(0, 0, HERE, 0.8), (0, 0, FAR, 0.9)], ["background"]),
    "empty image": ([(1, 0, HERE)], [(1, 0, HERE, 0.8), (0, 0, HERE, 0.9)], ["background"]),
    "missed": ([(0, 0, HERE), (0, 0, FAR)], [(0, 0, HERE, 0.9)], ["missed"]),
    "none": ([(0, 0, HERE)], [(0, 0, HERE, 0.9)], []),
}


@pytest.mark.parametrize("name", SCENES)
def test_a_scene_has_its_kinds_of_errors(name):
    objects, detections, kinds = SCENES[name]
    truth, found = scene(objects, detections, images=2)
    errors = {x.kind: x for x in analyse(truth, found, resamples=0, score_thresh=0.1).errors}
    assert list(errors) == list(KINDS)
    assert {k: x.count for k, x in errors.items()} == {k: int(k in kinds) for k in KINDS}
    assert {k: x.count_at_threshold for k, x in errors.items()} == {
        k: int(k in kinds) for k in KINDS
    }


def error_of(kind, objects, detections):
    truth, found = scene(objects, detections)
    errors = analyse(truth, found, resamples=0, score_thresh=0.5).errors
    return next(x for x in errors if x.kind == kind)


def test_mending_brings_what_it_should():
    """One of two objects found: AP 51/101 as COCO counts; mended, 1."""
    half = 1 - 51 / 101
    both = [(0, 0, HERE), (0, 0, FAR)]
    right = (0, 0, HERE, 0.9)
    near_far = [220.0, 0.0, 40.0, 40.0]
    assert error_of("localisation", both, [right, (0, 0, near_far, 0.8)]).dAP == pytest.approx(half)
    assert error_of("missed", both, [right]).dAP == pytest.approx(half)
    wrong_class = [right, (0, 1, FAR, 0.8)]
    assert error_of("classification", both, wrong_class).dAP == pytest.approx(half)
    surer = [(0, 0, HERE, 0.8), (0, 0, FAR, 0.9)]
    assert error_of("background", [(0, 0, HERE)], surer).dAP == pytest.approx(0.5)
    # of two near one object the surer is mended, the other goes
    two = [(0, 0, NEAR, 0.9), (0, 0, NEAR, 0.8)]
    assert error_of("localisation", [(0, 0, HERE)], two).dAP == pytest.approx(1)


def test_an_example_says_what_was_meant():
    error = error_of("classification", [(0, 0, HERE)], [(0, 1, HERE, 0.9)])
    (example,) = error.examples
    assert (example.image_id, example.file_name, example.score) == (0, "0.jpg", 0.9)
    assert (example.class_name, example.object_class_name) == ("b", "a")
    assert example.box == example.object_box == [0, 0, 40, 40]
    assert example.iou == pytest.approx(1)
    (missed,) = error_of("missed", [(0, 0, FAR)], []).examples
    assert (missed.class_name, missed.box, missed.score) == ("a", [200, 0, 240, 40], None)
    (background,) = error_of("background", [(0, 0, HERE)], [(0, 0, FAR, 0.9)]).examples
    assert background.object_box is background.iou is None


def test_what_is_below_the_threshold_is_counted_apart():
    """The unsure near hit would find the object, but it is not kept."""
    near = [(0, 0, NEAR, 0.2)]
    localisation = error_of("localisation", [(0, 0, HERE)], near)
    assert (localisation.count, localisation.count_at_threshold) == (1, 0)
    missed = error_of("missed", [(0, 0, HERE)], near)
    assert (missed.count, missed.count_at_threshold) == (0, 1)


def test_a_half_overlap_with_a_found_object_is_a_duplicate():
    half = (0, 0, [0.0, 0.0, 20.0, 40.0], 0.8)
    assert error_of("duplicate", [(0, 0, HERE)], [(0, 0, HERE, 0.9), half]).count == 1


@pytest.mark.parametrize("iou", [0.5, 0.75])
def test_counts_and_gains_are_hotcoco(iou):
    """Without crowds: hotcoco takes a detection near a crowd for one near an object."""
    truth, found = random_case()
    with_different_scores(truth, found)
    wrong_classes(truth, found)
    for x in truth["annotations"]:
        x["iscrowd"] = 0
    theirs = by_hotcoco(truth, found).tide_errors(pos_thr=iou)
    ours = analyse(truth, found, resamples=0, iou_thresh=iou).errors
    assert {KINDS[x.kind]: x.count for x in ours} == theirs["counts"]
    assert min(theirs["counts"].values()) > 5
    for x in ours:
        assert x.dAP == pytest.approx(theirs["delta_ap"][KINDS[x.kind]], abs=1e-12), x.kind
    assert [len(x.examples) for x in ours] == [min(12, x.count) for x in ours]
    for x in ours[:-1]:
        scores = [e.score for e in x.examples]
        assert scores == sorted(scores, reverse=True)


def test_crowds_and_what_is_on_them_change_nothing():
    truth, found = random_case()
    with_different_scores(truth, found)
    wrong_classes(truth, found)
    for x in truth["annotations"]:
        x["iscrowd"] = 0
    expected = analyse(truth, found, resamples=0)
    size = truth["images"][0]["width"]
    for i, x in enumerate(truth["images"]):
        box = [size + 100.0, 0.0, 50.0, 50.0]
        common = {"image_id": x["id"], "category_id": 1 + i % 5, "bbox": box}
        crowd = {"id": 10_000 + i, "area": 2500.0, "iscrowd": 1}
        truth["annotations"].append({**common, **crowd})
        found += [{**common, "score": 0.9}, {**common, "score": 0.1}]
    crowded = analyse(truth, found, resamples=0)
    assert crowded.counts.ignored_detections == 2 * len(truth["images"])
    assert crowded.errors == expected.errors
