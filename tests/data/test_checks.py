"""`check_datasets` finds what would break or spoil a training, before it starts."""

import json
import logging
from functools import partial

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from detectron2.data import detection_utils as stock
from detectron2.data import transforms as T
from detectron2.data.datasets import register_coco_instances
from detectron2.structures import BoxMode
from PIL import Image
from support.catalogs import catalogs  # noqa: F401 - an autouse fixture
from support.checked_sets import HEIGHT, WIDTH, box, config, error_of, make_records, told

from retina_plugin.data.checks import check_datasets
from retina_plugin.data.coco_json import CocoDataset


@pytest.fixture
def make(tmp_path):
    return partial(make_records, tmp_path)


def test_nothing_to_say(make, caplog):
    make([box(), box(0, 0, WIDTH, HEIGHT, category_id=1)], [box(-5, 20, 30, 30)])  # partly outside
    assert told(config(test=("set",)), caplog) == {20: [], 30: [], 40: []}


# ---- boxes

ODD_BOXES = {
    "zero width": (box(w=0), logging.WARNING, "boxes without width or height (1)"),
    "thin": (box(h=1e-6), logging.WARNING, "boxes without width or height (1)"),
    "right of the image": (box(x=WIDTH), logging.WARNING, "wholly outside their image (1)"),
    "above the image": (box(y=-20), logging.WARNING, "wholly outside their image (1)"),
    "negative width": (box(x=20, w=-10), logging.ERROR, "of negative width or height (1)"),
    "NaN": (box(w=float("nan")), logging.ERROR, "not 4 finite numbers (1)"),
    "infinite": (box(w=float("inf")), logging.ERROR, "not 4 finite numbers (1)"),
    "three numbers": ({**box(), "bbox": [1, 2, 3]}, logging.ERROR, "not 4 finite numbers (1)"),
    "no box": ({"category_id": 0}, logging.ERROR, "not 4 finite numbers (1)"),
    "no mode": ({"bbox": [1, 2, 3, 4], "category_id": 0}, logging.ERROR, "bbox_mode is not"),
    "relative": (box(mode=BoxMode.XYWH_REL), logging.ERROR, "bbox_mode is not"),
    "class too large": (box(category_id=2), logging.ERROR, "category_id is not from 0"),
    "class below 0": (box(category_id=-1), logging.ERROR, "category_id is not from 0"),
    "crowd": (box(category_id=7, iscrowd=1), logging.INFO, "crowd boxes (1)"),
}


@pytest.mark.parametrize("odd", ODD_BOXES)
@pytest.mark.parametrize("split", ["TRAIN", "TEST"])
def test_odd_box(odd, split, make, caplog):
    annotation, level, expected = ODD_BOXES[odd]
    make([box(), annotation])
    train = split == "TRAIN"
    cfg = config() if train else config((), ("set",))
    if level == logging.ERROR:
        text = error_of(cfg, train)
    else:
        found = told(cfg, caplog, train)
        assert sum(map(len, found.values())) == 1
        (text,) = found[level]
    assert f"DATASETS.{split} 'set'" in text and expected in text
    assert ("box 2 of image 0 (" in text and "0.png)" in text) == (level > logging.INFO)


@pytest.mark.parametrize("transform", [T.NoOpTransform(), T.ResizeTransform(30, 40, 60, 80)])
def test_what_detectron2_does_with_odd_boxes(transform):
    """The warnings say that boxes are dropped, negative ones are an error: is it so?"""

    def survives(annotation):
        size = (60, 80) if isinstance(transform, T.ResizeTransform) else (HEIGHT, WIDTH)
        annotation = stock.transform_instance_annotations(
            dict(annotation), T.TransformList([transform]), size
        )
        return len(stock.filter_empty_instances(stock.annotations_to_instances([annotation], size)))

    for annotation, level, _ in ODD_BOXES.values():
        if level == logging.WARNING:
            assert not survives(annotation)
    assert survives(ODD_BOXES["negative width"][0])
    assert survives(box(-5, 20, 30, 30))


def test_xyxy_boxes_and_arrays(make, caplog):
    make([box(5, 5, 15, 15, mode=BoxMode.XYXY_ABS), {**box(), "bbox": np.array([1, 1, 9.0, 9])}])
    assert told(config(), caplog)[30] == []
    make([box(5, 5, 4, 15, mode=BoxMode.XYXY_ABS)], name="negative")
    assert "negative" in error_of(config(("negative",)))


def test_counts_all_and_shows_five(make, caplog):
    make([box(w=0) for _ in range(9)] + [box()])
    (text,) = told(config(), caplog)[30]
    assert "(9)" in text and "box 5 of" in text and "box 6 of" not in text and "; ..." in text


# ---- images and data sets


@pytest.mark.parametrize("filtered", [True, False])
def test_images_without_boxes_are_told_with_the_policy(filtered, make, caplog):
    make([], [box(iscrowd=1)], [box()])
    cfg = config()
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = filtered
    empty = next(text for text in told(cfg, caplog)[20] if "images without boxes (2)" in text)
    assert ("skipped in training" in empty) == filtered
    assert ("background in training" in empty) != filtered


@pytest.mark.parametrize("ignored", [True, False])
def test_crowd_is_told_with_the_policy(ignored, make, caplog):
    make([box(), box(iscrowd=1)])
    cfg = config()
    cfg.INPUT.IGNORE_CROWD = ignored
    (text,) = told(cfg, caplog)[20]
    assert ("area that they cover are ignored" in text) == ignored
    assert ("trained as background" in text) != ignored
    assert ("Fix: INPUT.IGNORE_CROWD=True" in text) != ignored


@pytest.mark.parametrize("filtered", [True, False])
@pytest.mark.parametrize("annotations", [[], [box(iscrowd=1)], [box(w=0)], [box(x=999)]])
def test_no_box_at_all(filtered, annotations, make):
    make(annotations)
    cfg = config()
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = filtered
    assert "no image of set has a usable box" in error_of(cfg)


def test_no_box_to_find_is_a_warning(make, caplog):
    make([])
    assert any(
        "no image has a ground-truth box" in x for x in told(config((), ("set",)), caplog, 0)[30]
    )


def test_one_set_may_be_all_background(make, caplog):
    make([], name="background")
    make([box()], name="objects")
    assert told(config(("background", "objects")), caplog)[30] == []


def test_no_images(make):
    make()
    assert "DATASETS.TRAIN: 'set' has no images" in error_of(config())


def test_no_data_set():
    assert "DATASETS.TRAIN: names no data set" in error_of(config(()))
    assert "DATASETS.TEST: names no data set" in error_of(config(()), train=False)


def test_unknown_data_set(make):
    make([box()])
    message = error_of(config(("coco_2017_trian",)))
    assert "DATASETS.TRAIN" in message and "Did you mean coco_2017_train" in message


def test_data_set_that_is_not_there(monkeypatch):
    message = error_of(config(("voc_2007_train",)))
    assert "'voc_2007_train' cannot be loaded" in message and "DETECTRON2_DATASETS" in message


def test_images_without_annotations_key(make):
    records = make([box()], [box()])
    del records[1]["annotations"]
    assert "images without 'annotations'" in error_of(config())


def test_more_classes_than_num_classes(make):
    make([box()], thing_classes=["a", "b", "c"])
    assert "has 3 classes, but MODEL.RETINANET.NUM_CLASSES is 2" in error_of(config())


def test_only_the_test_set_without_training(make, caplog):
    make([box(w=float("nan"))], name="train")
    make([box()], name="test")
    assert told(config(("train",), ("test",)), caplog, train=False)[40] == []


# ---- everything


def test_all_errors_at_once(make):
    records = make([box(w=float("nan"))], [box(category_id=5)])
    records[0]["file_name"] = "gone.png"
    message = error_of(config(("set", "unknown")))
    assert message.startswith("4 problem(s)")
    for expected in ("finite", "category_id", "gone.png", "'unknown' is unknown"):
        assert expected in message


# ---- what Detectron2's own reader of COCO json drops or meets too late


def register_json(tmp_path, edit):
    dataset = CocoDataset(["cat"])
    for _ in range(2):
        dataset.add_box(dataset.add_image("0.png", WIDTH, HEIGHT), (1, 2, 11, 22))
    dataset.save(tmp_path / "set.json")
    content = json.loads((tmp_path / "set.json").read_text())
    edit(content["annotations"][0])
    (tmp_path / "set.json").write_text(json.dumps(content))
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "0.png")
    register_coco_instances("json_set", {}, str(tmp_path / "set.json"), str(tmp_path))


def test_dropped_polygons(tmp_path, caplog):
    register_json(tmp_path, lambda annotation: annotation.update(segmentation=[[1, 2, 3, 4]]))
    (text,) = told(config(("json_set",)), caplog)[30]
    assert "annotation 1 of image 1" in text and "drops" in text
    assert not DatasetCatalog.get("json_set")[0]["annotations"]


def test_annotation_id_0(tmp_path, caplog):
    register_json(tmp_path, lambda annotation: annotation.update(id=0))
    assert told(config(("json_set",)), caplog)[30] == []
    (text,) = told(config((), ("json_set",)), caplog, train=False)[30]
    assert "annotation 0 of image 1" in text and "missed" in text


def test_json_of_the_users_own_registration(tmp_path):
    register_json(tmp_path, lambda annotation: annotation.pop("area"))
    check_datasets(config(("json_set",)), train=True)
    assert "has area missing" in error_of(config(test=("json_set",)), train=False)
    assert "has area missing" in error_of(config(("json_set",), ("json_set",)))
