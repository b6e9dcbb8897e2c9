"""Two analyses side by side."""

import json

import pytest
from support.coco_cases import random_case, scene

from retina_plugin.evaluation.analysis import Comparison, analyse, compare

HERE, THERE = [0.0, 0.0, 40.0, 40.0], [100.0, 0.0, 40.0, 40.0]


def two(**options):
    truth, found = random_case()
    for x in truth["images"]:
        x["site"] = "ab"[x["id"] % 2]
    fewer = [x for i, x in enumerate(found) if i % 4]
    return [analyse(truth, x, group_by=["site"], **options) for x in (found, fewer)]


def test_every_number_is_the_difference():
    one, other = two(resamples=20)
    result = compare(one, other)
    assert [x.name for x in result.coco] == list(one.coco)
    for x in result.coco:
        assert (x.value, x.against) == (one.coco[x.name], other.coco[x.name])
        assert x.change == x.value - x.against
    overall = {x.name: x for x in result.overall}
    assert overall["f1"].value == one.overall.at_threshold.f1
    assert overall["ECE"].against == other.calibration.ECE
    for row, a, b in zip(result.classes, one.classes, other.classes, strict=True):
        assert row.name == a.name == b.name
        assert [x.value for x in row.numbers] == [a.AP, a.AP50, a.best.f1]
        assert [x.against for x in row.numbers] == [b.AP, b.AP50, b.best.f1]
    assert result.classes[-1].numbers[0].change is None  # it has no objects
    for row, a, b in zip(result.errors, one.errors, other.errors, strict=True):
        assert row.numbers[0].change == a.count_at_threshold - b.count_at_threshold
        assert row.numbers[1].change == a.dAP - b.dAP
    assert [x.name for x in result.groups] == ["site: a", "site: b"]
    assert result.groups[0].numbers[0].value == one.groupings[0].groups[0].AP
    assert result.notes == []


def test_intervals_are_of_the_same_resamples():
    one, other = two(resamples=40)
    interval = compare(one, other).intervals["AP"]
    a, b = (x.intervals["AP"].samples for x in (one, other))
    assert interval.samples == [x - y for x, y in zip(a, b, strict=True)]
    assert interval.low <= one.coco["AP"] - other.coco["AP"] <= interval.high
    width = min(x.intervals["AP"].high - x.intervals["AP"].low for x in (one, other))
    assert interval.high - interval.low < width  # what both share does not count
    same = compare(one, one).intervals["AP"]
    assert (same.low, same.high) == (0, 0)


def test_other_resamples_give_no_interval():
    one, _ = two(resamples=20)
    _, other = two(resamples=20, seed=5)
    assert compare(one, other).intervals == {}


def test_images_that_changed_most():
    objects = [(i, 0, box) for i in range(4) for box in (HERE, THERE)]
    both = [(i, 0, box, 0.9) for i in range(4) for box in (HERE, THERE)]
    one = analyse(*scene(objects, [both[0], *both[2:4], *both[4:6]], images=4), resamples=0)
    other = analyse(*scene(objects, [*both[:2], both[2], both[6]], images=4), resamples=0)
    result = compare(one, other)
    assert [x.value.image_id for x in result.better] == [2, 1]
    assert [x.value.image_id for x in result.worse] == [3, 0]
    assert (result.images_better, result.images_worse) == (2, 2)
    assert result.better[0].change == pytest.approx(1)
    assert (result.better[0].value.f1, result.better[0].against.f1) == (1, 0)
    assert len(compare(one, other, images=1).better) == 1


def test_what_only_one_has_is_told():
    one = analyse(*scene([(0, 0, HERE)], [], classes=3, images=2), resamples=0)
    other = analyse(*scene([(0, 0, HERE)], [], classes=2, images=1), resamples=0)
    assert compare(one, other).notes == [
        "Only the first has 1 of the images, not compared: 1.jpg (id 1).",
        "Only the first has 1 of the classes, not compared: c.",
    ]
    assert "Only the other has" in compare(other, one).notes[0]


def test_json_and_back():
    result = compare(*two(resamples=5))
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert Comparison.from_dict(content) == result
