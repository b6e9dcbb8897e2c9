"""The texts show the numbers, in lines that a terminal holds."""

import re

import pytest
from support.coco_cases import random_case, scene, with_wrong_classes

from retina_plugin.evaluation.analysis import analyse, as_text, compare, comparison_text
from retina_plugin.workbench.benchmark.coco_evaluation import synthetic_case

BOX = [0.0, 0.0, 40.0, 40.0]


def some(**options):
    truth, found = random_case()
    with_wrong_classes(truth, found)
    for x in truth["images"]:
        x["site"] = "ab"[x["id"] % 2]
    return analyse(truth, found, group_by=["site"], **options)


def cells(text, first):
    """The row of a table that begins so."""
    (line,) = [x for x in text.splitlines() if x.startswith(first)]
    return re.split(r"  +", line.strip())


def test_an_analysis_in_text():
    result = some(resamples=20)
    text = as_text(result)
    lines = text.splitlines()
    coco = lines[lines.index(next(x for x in lines if x.split() == list(result.coco))) + 2]
    assert coco.split() == [f"{100 * x:.1f}" for x in result.coco.values()]
    one = result.classes[0]
    assert cells(text, "class 0")[:4] == [
        "class 0",
        str(one.objects),
        f"{100 * one.AP:.1f}",
        f"{100 * one.AP50:.1f}",
    ]
    for x in result.errors:
        assert cells(text, x.kind)[1:] == [
            str(x.count_at_threshold),
            f"{100 * x.dAP:.1f}",
            x.meaning,
        ]
    point = result.overall.at_threshold
    assert f"F1 {100 * point.f1:.1f}\n{point.true_positives} hits, " in text
    assert f"AP {100 * result.intervals['AP'].low:.1f} to" in text
    group = result.groupings[0].groups[0]
    assert cells(text, "a ")[:4] == [
        "a",
        str(group.images),
        str(group.objects),
        f"{100 * group.AP:.1f}",
    ]
    assert "1 of the classes have no objects" in text
    assert re.search(r"Confused most: \d+ x class \d as class \d, ", text)
    worst = result.images[result.worst[0] - 1]
    assert cells(text, worst.file_name)[1:5] == [
        *map(str, (worst.objects, worst.true_positives)),
        *map(str, (worst.false_positives, worst.false_negatives)),
    ]
    assert max(map(len, lines)) <= 100
    assert len(lines) <= 60


def test_of_many_classes_the_best_and_the_worst_are_shown():
    result = analyse(*synthetic_case(images=20, detections=600, classes=30), resamples=0)
    text = as_text(result)
    assert "the best 5 and the worst 5 of 29 classes" in text
    shown = [x for x in result.classes if re.search(rf"^{x.name} ", text, re.M)]
    APs = sorted((x.AP for x in result.classes if x.AP is not None), reverse=True)
    assert sorted((x.AP for x in shown), reverse=True) == [*APs[:5], *APs[-5:]]


@pytest.mark.parametrize("objects", [[], [(0, 0, BOX)]])
@pytest.mark.parametrize("detections", [[], [(0, 0, BOX, 0.9)]])
def test_little_is_text_as_well(objects, detections):
    result = analyse(*scene(objects, detections, classes=1))
    text = as_text(result)
    assert ("no threshold" in text) == (not (objects and detections))
    for note in result.notes:
        assert note in text
    assert comparison_text(compare(result, result))


def test_another_iou_is_named():
    assert "AP50 lost" in as_text(some(resamples=0))
    assert "AP50 lost" not in as_text(some(resamples=0, iou_thresh=0.6))


def test_a_comparison_in_text():
    one, other = some(resamples=20), some(resamples=20, score_thresh=0.9)
    result = compare(one, other)
    text = comparison_text(result)
    assert cells(text, "AP50") == [
        "AP50",
        *[f"{100 * one.coco['AP50']:.1f}"] * 2,
        "+0.0",
        "+0.0 to +0.0",
    ]
    recall = next(x for x in result.overall if x.name == "recall")
    assert cells(text, "recall")[-1] == f"{100 * recall.change:+.1f}"
    assert f"{result.images_worse} images worse: " in text
    assert len(text.splitlines()) <= 40
