"""Groups of images and of objects: pycocotools' numbers of them alone, and how fields are read."""

import copy

import numpy as np
import pytest
from support.coco_cases import by_pycocotools, random_case, scene

from retina_plugin.evaluation.analysis import analyse
from retina_plugin.evaluation.analysis.columns import read_columns
from retina_plugin.evaluation.analysis.field_groups import field_groups

BOX = [0.0, 0.0, 10.0, 10.0]


def groups_of(truth, found, field, **options):
    (grouping,) = analyse(truth, found, resamples=0, group_by=[field], **options).groupings
    return grouping


@pytest.mark.parametrize("iou", [0.5, 0.62])  # AP stays that of COCO's ten thresholds
def test_a_group_of_images_is_pycocotools_on_them(iou):
    truth, found = random_case()
    for x in truth["images"]:
        x["site"] = "north" if x["id"] % 3 else "south"
    grouping = groups_of(truth, found, "site", score_thresh=0.0, iou_thresh=iou)
    assert (grouping.field, grouping.of) == ("site", "images")
    assert [x.name for x in grouping.groups] == ["north", "south"]
    for group in grouping.groups:
        ids = [x["id"] for x in truth["images"] if x["site"] == group.name]
        stats = by_pycocotools(truth, found, image_ids=ids).stats
        assert abs(np.array([group.AP, group.AP50]) - stats[:2]).max() < 1e-12
        inside = {"images": [x for x in truth["images"] if x["id"] in ids]}
        for part, rows in (("annotations", truth["annotations"]), ("found", found)):
            inside[part] = [x for x in rows if x["image_id"] in ids]
        options = {"resamples": 0, "score_thresh": 0.0, "iou_thresh": iou}
        alone = analyse({**truth, **inside}, inside["found"], **options)
        point = alone.overall.at_threshold
        assert (group.recall, group.precision) == (point.recall, point.precision)
        assert (group.images, group.objects) == (len(ids), alone.counts.objects)


def test_a_group_of_objects_is_pycocotools_with_the_others_ignored():
    """By areas: out of pycocotools' range of them an object is ignored."""
    truth, found = random_case()
    for x in truth["annotations"]:
        x["hidden"] = bool(x["id"] % 2)
    grouping = groups_of(truth, found, "hidden", score_thresh=0.0)
    assert grouping.of == "annotations"
    assert {x.name for x in grouping.groups} == {"True", "False"}
    for group in grouping.groups:
        others = copy.deepcopy(truth)
        for x in others["annotations"]:
            if str(x["hidden"]) != group.name:
                x["area"] = 1e20
        evaluation = by_pycocotools(others, found)
        assert abs(np.array([group.AP, group.AP50]) - evaluation.stats[:2]).max() < 1e-12
        there = [x for x in evaluation.evalImgs if x is not None and x["aRng"][1] == 1e10]
        there = [x for x in there if x["aRng"][0] == 0]
        hits = sum(((x["dtMatches"][0] > 0) & ~x["dtIgnore"][0]).sum() for x in there)
        kept = sum((~x["dtIgnore"][0]).sum() for x in there)
        objects = sum((x["gtIgnore"] == 0).sum() for x in there)
        assert (group.objects, group.detections) == (objects, kept)
        assert group.recall == pytest.approx(hits / objects)
        assert group.recall_low < group.recall < group.recall_high


def test_recall_of_the_groups_of_objects_adds_up():
    truth, found = random_case()
    for x in truth["annotations"]:
        x["distance"] = x["id"] * 0.5
    result = analyse(truth, found, resamples=0, group_by=["distance"], score_thresh=0.0)
    groups = result.groupings[0].groups
    assert len(groups) == 4
    assert sum(x.objects for x in groups) == result.counts.objects
    assert max(x.objects for x in groups) - min(x.objects for x in groups) < 8
    found_in_groups = sum(x.recall * x.objects for x in groups)
    # the groups have first choice of what overlaps several objects
    assert found_in_groups >= result.overall.at_threshold.true_positives


def labels(values, part="images", ranges=4):
    truth, found = scene([(0, 0, BOX)] * len(values), [], images=len(values))
    for x, value in zip(truth[part], values, strict=True):
        if value is not None:
            x["field"] = value
    groups = field_groups(read_columns(truth, found, max_detections=100), "field", ranges)
    return groups.names, [groups.names[i] for i in groups.group]


def test_texts_are_groups_the_most_frequent_first():
    assert labels(["b", "a", "b", None])[0] == ["b", "a", "(none)"]
    assert labels(["b", "a", "b", None])[1] == ["b", "a", "b", "(none)"]


def test_rare_texts_go_together():
    values = [f"site {i:02d}" for i in range(30)] * 2
    names, rows = labels(values)
    assert len(names) == 20
    assert names[-1] == "(other: 11 values)"
    assert rows.count("(other: 11 values)") == 22


def test_few_numbers_are_groups_in_their_order():
    assert labels([10, 2, 2, 10, 3.5])[0] == ["2", "3.5", "10"]


def test_many_numbers_are_ranges():
    names, rows = labels([float(x) for x in range(100)])
    assert names == ["0 to 24.8", "24.8 to 49.5", "49.5 to 74.2", "74.2 to 99"]
    assert [rows.count(x) for x in names] == [25] * 4
    assert (rows[0], rows[-1]) == (names[0], names[-1])
    assert len(labels([float(x) for x in range(100)], ranges=2)[0]) == 2


def test_numbers_that_crowd_share_fewer_ranges():
    names, rows = labels([0.0] * 90 + [float(x) for x in range(1, 11)])
    assert len(set(rows)) == len(names)


def test_ranges_of_large_numbers_have_different_names():
    names, _ = labels([1e6 + x for x in range(40)], part="annotations")
    assert len(set(names)) == 4


def test_a_field_that_nothing_has_is_refused():
    truth, found = random_case()
    truth["images"][3]["distance"] = 3
    with pytest.raises(
        ValueError, match=r"'distanse': no image .* Did you mean distance\?.*images.di"
    ):
        groups_of(truth, found, "distanse")


def test_a_field_of_both_parts_wants_its_part():
    truth, found = random_case()
    for part in ("images", "annotations"):
        for x in truth[part]:
            x["kind"] = part
    with pytest.raises(ValueError, match=r"write images\.kind or annotations\.kind"):
        groups_of(truth, found, "kind")
    assert groups_of(truth, found, "images.kind").groups[0].name == "images"
    assert groups_of(truth, found, "annotations.kind").of == "annotations"


def test_a_group_without_objects_has_no_ap():
    truth, found = scene([(0, 0, BOX)], [(1, 0, BOX, 0.9)], images=2)
    for x in truth["images"]:
        x["site"] = str(x["id"])
    empty = groups_of(truth, found, "site", score_thresh=0.5).groups[1]
    assert (empty.AP, empty.recall, empty.recall_low, empty.precision) == (None, None, None, 0)
    assert np.isfinite(empty.detections)
