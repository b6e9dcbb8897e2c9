import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

from retina_plugin.data.coco_json import SplitPaths
from retina_plugin.data.coco_places import (
    RECORD,
    as_tuple,
    declared_places,
    record_place,
    recorded_place,
    registered_place,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, ()), ("", ()), ("a", ("a",)), (["a", "b"], ("a", "b")), ("[a, b]", ("a", "b"))],
)
def test_one_or_several(value, expected):
    assert as_tuple(value) == expected


def test_declared_whether_there_or_not(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    places = declared_places({"NAME": None, "JSON": ["x/a.json", "datasets/b.json"], "IMAGES": "i"})
    assert [(str(x.json), str(x.images)) for x in places.values()] == [
        ("x/a.json", "i"),
        (str(tmp_path / "b.json"), "i"),
    ]
    assert list(places) == ["a", "b"] and declared_places({}) == {}


def test_a_record_of_a_registered_set(tmp_path):
    name = f"places_{tmp_path.name}"
    assert registered_place(name) is None
    register_coco_instances(name, {}, str(tmp_path / "a.json"), str(tmp_path / "i"))
    try:
        record_place(tmp_path / "results", name)
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    assert recorded_place(tmp_path / "results") == SplitPaths(tmp_path / "a.json", tmp_path / "i")


def test_no_record(tmp_path):
    record_place(tmp_path, "never_registered")
    assert recorded_place(tmp_path) is None
    for broken in ("{", "[]", json.dumps({"json": 1})):
        (tmp_path / RECORD).write_text(broken)
        assert recorded_place(tmp_path) is None
