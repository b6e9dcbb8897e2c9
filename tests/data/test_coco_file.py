"""A COCO json that Detectron2 or pycocotools would trip over is described, entry by entry."""

import json
import logging

import pytest

from retina_plugin.data.coco_file import read_coco_file
from retina_plugin.data.coco_json import CocoDataset


def write(folder, edit=None, name="set.json"):
    """A json of two images and two boxes, changed by `edit`."""
    dataset = CocoDataset(["cat", "dog"])
    for index in range(2):
        image_id = dataset.add_image(f"{index}.png", 40, 30)
        dataset.add_box(image_id, (1, 2, 11, 22), class_index=index)
    path = folder / name
    dataset.save(path)
    if edit is not None:
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))
    return path


def told(path, level, split="TRAIN"):
    """The findings of one level, a line each."""
    found = read_coco_file(path).findings[split]
    return "\n".join(str(finding) for finding in found if finding.level == level)


def test_nothing_to_say(tmp_path):
    content = read_coco_file(write(tmp_path))
    assert content.class_ids == {1: 0, 2: 1} and content.class_names == ("cat", "dog")
    assert content.findings == {"TRAIN": (), "TEST": ()}


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda text: text[: len(text) // 2], "It is truncated"),
        (lambda text: "", "It is truncated"),
        (lambda text: "images: []", "is not valid json"),
        (lambda text: "[1, 2]", "must be an object with images, annotations, categories; it is [1"),
    ],
)
def test_file_that_is_no_json(damage, expected, tmp_path):
    path = write(tmp_path)
    path.write_text(damage(path.read_text()))
    content = read_coco_file(path)
    assert (content.class_ids, content.class_names) == ({}, ())
    for split in ("TRAIN", "TEST"):
        (finding,) = content.findings[split]
        assert finding.level == logging.ERROR
        assert finding.where == str(path) and expected in str(finding)


def set_in(part, index=0, **values):
    """An edit of a json: the values of one entry; None removes a key."""

    def edit(content):
        for key, value in values.items():
            content[part][index][key] = value
            if value is None:
                del content[part][index][key]

    return edit


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda c: c.pop("images"), 'must have "images", a list of objects; it is missing'),
        (lambda c: c.pop("annotations"), 'has no "annotations"'),
        (lambda c: c.pop("categories"), 'must have "categories", a list of objects; it is missing'),
        (lambda c: c.update(categories=[]), 'must have "categories", a list of objects; it is []'),
        (lambda c: c["images"].append(3), 'must have objects in "images"; 1 of its entries'),
        (set_in("categories", 1, id=1), "categories that share their id (1): id 1 2 times"),
        (set_in("categories", 1, name="cat"), "categories that share their name (1): name 'cat' 2"),
        (set_in("categories", name=None), "category 1 (no name) has name missing"),
        (set_in("images", 1, id=1), "images that share their id (1): id 1 2 times"),
        (set_in("images", id=[1]), "image number 1 (0.png) has id [1]"),
        (set_in("images", file_name=None), "image 1 (no file_name) has file_name missing"),
        (set_in("images", width=0), "image 1 (0.png) has width 0"),
        (set_in("images", 1, height="30"), "image 2 (1.png) has height '30'"),
        (set_in("annotations", 1, id=1), "annotations that share their id (1): id 1 2 times"),
        (set_in("annotations", id="x"), "annotation x of image 1 has id 'x'"),
        (set_in("annotations", image_id=9), "annotation 1 of image 9 has image_id 9"),
        (set_in("annotations", category_id=9), "annotation 1 of image 1 has category_id 9"),
        (set_in("annotations", bbox=None), "annotation 1 of image 1 has bbox missing"),
        (set_in("annotations", bbox=[1, 2, 3]), "has bbox [1, 2, 3]"),
        (set_in("annotations", bbox=[1, 2, 3, float("nan")]), "has bbox [1, 2, 3, nan]"),
        (set_in("annotations", bbox=[1, 2, 3, float("inf")]), "has bbox [1, 2, 3, inf]"),
        (set_in("annotations", bbox=[1, 2, 3, "4"]), "4 finite numbers [x, y, width, height]"),
        (set_in("annotations", iscrowd="no"), "annotation 1 of image 1 has iscrowd 'no'"),
        (set_in("annotations", ignore=1), "annotation 1 of image 1 has ignore 1"),
    ],
)
def test_json_that_detectron2_would_trip_over(edit, expected, tmp_path):
    text = told(write(tmp_path, edit), logging.ERROR)
    assert text.startswith(str(tmp_path / "set.json")) and expected in text


@pytest.mark.parametrize("key", ["area", "iscrowd"])
def test_what_only_evaluation_needs(key, tmp_path):
    path = write(tmp_path, set_in("annotations", **{key: None}))
    assert told(path, logging.ERROR) == ""
    assert f"annotation 1 of image 1 has {key} missing" in told(path, logging.ERROR, "TEST")


def test_json_without_annotations_is_for_detection_only(tmp_path):
    path = write(tmp_path, lambda content: content.pop("annotations"))
    assert 'has no "annotations"' in told(path, logging.ERROR)
    assert told(path, logging.ERROR, "TEST") == ""
    assert "AP cannot be computed" in told(path, logging.WARNING, "TEST")


def test_shared_annotation_ids_of_the_popular_minival_pass_as_in_detectron2(tmp_path):
    edit = set_in("annotations", 1, id=1)
    path = write(tmp_path, edit, name="instances_minival2014.json")
    assert told(path, logging.ERROR) == ""
    assert "share their id" in told(path, logging.WARNING)


def test_all_mistakes_at_once_with_five_examples(tmp_path):
    def edit(content):
        first = content["annotations"][0]
        content["annotations"] = [dict(first, id=i, category_id=9) for i in range(1, 9)]
        content["images"][0]["width"] = None

    wide, classes = told(write(tmp_path, edit), logging.ERROR).splitlines()
    assert "image 1 (0.png) has width None" in wide
    assert "(8)" in classes and "annotation 5 of" in classes and "annotation 6 of" not in classes


def test_reads_again_only_what_changed(tmp_path):
    path = write(tmp_path)
    first = read_coco_file(path)
    assert read_coco_file(path) is first
    write(tmp_path, set_in("categories", name="lynx"))
    assert read_coco_file(path).class_names == ("lynx", "dog")


def test_missing_file(tmp_path):
    assert "gone.json: cannot be read: No such file" in told(tmp_path / "gone.json", logging.ERROR)
