"""Ids of a COCO json for its images and classes."""

import json
from pathlib import Path

import pytest

from retina_plugin.inference.prediction.class_names import ClassNames, numbered_classes
from retina_plugin.inference.prediction.image_ids import CocoIds

IMAGES = [{"id": 70, "file_name": "a.jpg"}, {"id": "x", "file_name": "sub/a.jpg"}]
CATEGORIES = [{"id": 9, "name": "dog"}, {"id": 4, "name": "cat"}]


def write(tmp_path, **content):
    path = tmp_path / "images.json"
    path.write_text(json.dumps(content))
    return path


def test_by_the_longest_file_name(tmp_path):
    ids = CocoIds(write(tmp_path, images=IMAGES))
    assert ids.id_of(Path("anywhere/a.jpg")) == 70
    assert ids.id_of(Path("anywhere/sub/a.jpg")) == "x"
    with pytest.raises(KeyError):
        ids.id_of(Path("b.jpg"))


def test_counted_without_a_json():
    ids = CocoIds()
    assert [ids.id_of(Path("a.jpg")), ids.next_id(), ids.id_of(Path("a.jpg"))] == [1, 2, 3]


def test_categories(tmp_path):
    ids = CocoIds(write(tmp_path, images=IMAGES, categories=CATEGORIES))
    known = ClassNames.of(["dog", "cat"], "test")
    assert ids.classes(known).ids == (9, 4) and ids.classes(known).names == known.names
    made_up = ids.classes(numbered_classes(2))  # in the order of the ids, as Detectron2 counts
    assert (made_up.names, made_up.ids) == (("cat", "dog"), (4, 9))
    with pytest.raises(ValueError, match=r"its categories are .*cat.* without the detector's cow"):
        ids.classes(ClassNames.of(["dog", "cow"], "test"))
    with pytest.raises(ValueError, match="without the detector's class 0, class 1, class 2"):
        ids.classes(numbered_classes(3))
    assert CocoIds(write(tmp_path, images=IMAGES)).classes(known) is known


@pytest.mark.parametrize("text", ["[]", "{", '{"images": [{"id": 1}]}', '{"images": 3}'])
def test_what_is_no_coco_json(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r'x.json: is no COCO json with "images" that have "id"'):
        CocoIds(path)
