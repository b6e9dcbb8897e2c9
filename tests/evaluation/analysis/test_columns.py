"""What is read from a json and detections, and what is refused."""

import copy
import math

import numpy as np
import pytest
from support.coco_cases import random_case, scene

from retina_plugin.evaluation.analysis import analyse
from retina_plugin.evaluation.analysis.columns import class_names, read_columns

BOX = [0.0, 0.0, 10.0, 10.0]


def columns_of(truth, found, most=100):
    return read_columns(truth, found, max_detections=most)


@pytest.mark.parametrize("bad", [math.nan, math.inf, None, "0.5", [0.5]])
def test_a_score_that_is_no_number_is_refused(bad):
    truth, found = scene([(0, 0, BOX)], [(0, 0, BOX, 0.5), (0, 1, BOX, bad)])
    with pytest.raises(ValueError, match=r"image 0, class 1: score should be a finite number, is"):
        columns_of(truth, found)


@pytest.mark.parametrize("bad", [[0, 0, math.nan, 1], [0, 0, 1], None, ["0", 0, 1, 1], 3])
def test_a_box_that_is_none_is_refused(bad):
    truth, found = scene([(0, 0, BOX)], [(0, 0, BOX, 0.5), (0, 0, BOX, 0.4)])
    found[1]["bbox"] = bad
    with pytest.raises(ValueError, match=r"detection of image 0, class 0: bbox should be four"):
        columns_of(truth, found)
    truth["annotations"][0]["bbox"] = bad
    with pytest.raises(ValueError, match=r"annotation 1: bbox should be four finite numbers"):
        columns_of(truth, [])


def test_a_bad_area_is_refused():
    truth, found = scene([(0, 0, BOX)], [])
    truth["annotations"][0]["area"] = math.nan
    with pytest.raises(ValueError, match="annotation 1: area should be a finite number, is nan"):
        columns_of(truth, found)


@pytest.mark.parametrize("part", ["images", "annotations", "categories"])
def test_a_json_without_a_part_is_refused(part):
    truth, found = random_case()
    del truth[part]
    with pytest.raises(ValueError, match=f"there is no {part}"):
        columns_of(truth, found)


@pytest.mark.parametrize("key", ["image_id", "category_id"])
def test_an_annotation_of_nothing_known_is_refused(key):
    truth, found = scene([(0, 0, BOX)], [])
    truth["annotations"][0][key] = 7
    with pytest.raises(ValueError, match=f"annotation 1: {key} 7 is not in the json"):
        columns_of(truth, found)


@pytest.mark.parametrize("key", ["image_id", "category_id", "bbox", "score"])
def test_a_detection_without_a_key_is_refused(key):
    truth, found = scene([(0, 0, BOX)], [(0, 0, BOX, 0.5)])
    del found[0][key]
    with pytest.raises(ValueError, match=f"detection 0: no {key}"):
        columns_of(truth, found)


def test_ids_that_stand_twice_or_not_at_all_are_refused():
    truth, found = scene([], [], images=2)
    truth["images"][1]["id"] = 0
    with pytest.raises(ValueError, match="images: id 0 occurs more than once"):
        columns_of(truth, found)
    del truth["categories"][0]["id"]
    truth["images"][1]["id"] = 1
    with pytest.raises(ValueError, match="each of its categories needs an id"):
        columns_of(truth, found)


def test_detections_of_nothing_known_are_left_out_and_told():
    truth, found = random_case()
    strange = [{**found[0], "image_id": 999}, {**found[1], "category_id": "cat"}] * 2
    expected = analyse(truth, found, resamples=0)
    result = analyse(truth, [*strange, *found], resamples=0)
    assert result.coco == expected.coco
    assert result.notes == [
        "Left out: 2 detections of 1 images that the ground truth does not have (image_id 999).",
        "Left out: 2 detections of 1 classes that the ground truth does not have "
        "(category_id 'cat').",
    ]


def test_detections_beyond_the_most_are_left_out_and_told():
    truth, found = scene([(0, 0, BOX)], [(0, 0, BOX, 0.1 * i) for i in range(5)])
    columns = columns_of(truth, found, most=2)
    np.testing.assert_allclose(columns.detections.score, [0.4, 0.3])
    assert columns.notes == [
        "Left out: 3 detections beyond the 2 surest of their image and class, as COCO does."
    ]


def test_ids_may_be_texts_and_need_not_be_in_order():
    truth, found = random_case()
    expected = analyse(truth, found, resamples=0).to_dict()
    for part in ("images", "categories", "annotations"):
        for x in truth[part]:
            x["id"] = f"{x['id']:03d}"
        truth[part].sort(key=lambda x: x["id"][::-1])
    truth["annotations"].sort(key=lambda x: x["id"])
    for x in (*truth["annotations"], *found):
        x["image_id"] = f"{x['image_id']:03d}"
        x["category_id"] = f"{x['category_id']:03d}"
    assert analyse(truth, found, resamples=0).to_dict()["coco"] == expected["coco"]


def test_annotations_without_area_or_crowd_flag_are_objects_of_their_box():
    truth, found = random_case()
    for x in truth["annotations"]:
        x["iscrowd"] = 0
    expected = analyse(truth, found, resamples=0)
    for x in truth["annotations"]:
        del x["iscrowd"], x["area"]
    assert analyse(truth, found, resamples=0) == expected


def test_an_annotation_whose_id_is_0_is_found():
    """pycocotools takes it for not found: it writes the id where 0 means nothing."""
    truth, found = scene([(0, 0, BOX)], [(0, 0, BOX, 0.5)])
    truth["annotations"][0]["id"] = 0
    assert analyse(truth, found, resamples=0).coco["AP"] == pytest.approx(1)


def test_nothing_of_the_input_is_changed():
    truth, found = random_case()
    before = copy.deepcopy((truth, found))
    analyse(truth, found, resamples=2)
    assert (truth, found) == before


def test_classes_of_one_name_are_told_apart():
    truth, found = scene([], [], classes=3)
    truth["categories"][2]["name"] = "a"
    del truth["categories"][1]["name"]
    names = class_names(columns_of(truth, found))
    assert names == ["a (id 0)", "class (id 1)", "a (id 2)"]
