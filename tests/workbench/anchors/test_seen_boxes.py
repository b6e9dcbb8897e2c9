"""The boxes without images are those that the mapper makes of the images."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from support.block_data import as_overrides, write_blocks
from support.catalogs import catalogs  # noqa: F401

from retina_plugin.config.config_file import load_config
from retina_plugin.data.coco_registration import register_datasets
from retina_plugin.data.mapper import RetinaDatasetMapper
from retina_plugin.workbench.anchors.seen_boxes import seen_boxes

NO_FLIP = ("INPUT.RANDOM_FLIP=none", "INPUT.MIN_SIZE_TRAIN=[150]", "INPUT.MAX_SIZE_TRAIN=200")
RANDOM = (
    "INPUT.AUGMENTATIONS=[{'NAME': 'RandomZoomCrop', 'size': 70, 'zoom': [0.9, 2.3]}, "
    "{'NAME': 'RandomQuarterTurn'}, {'NAME': 'RandomFlip'}, {'NAME': 'RandomExtent', "
    "'scale_range': [0.7, 1.3], 'shift_range': [0.2, 0.2]}, "
    "{'NAME': 'ResizeShortestEdge', 'short_edge_length': [80, 120]}]"
)
COLOURS = "{'NAME': 'RandomContrast', 'intensity_min': 0.5, 'intensity_max': 2}"


@pytest.fixture
def cfg_of(tmp_path):
    paths = write_blocks(tmp_path, "train", 6)

    def build(*overrides):
        cfg = load_config("", [*as_overrides(paths, paths), *overrides])
        register_datasets(cfg)
        return cfg

    return build


def trained_on(cfg, records):
    """The config with other training data."""
    DatasetCatalog.register("other", lambda: records)
    cfg.DATASETS.TRAIN = ("other",)
    return cfg


def record(*boxes, crowd=(), **more):
    annotations = [
        {
            "bbox": list(b),
            "bbox_mode": BoxMode.XYWH_ABS,
            "category_id": 0,
            "iscrowd": int(i in crowd),
        }
        for i, b in enumerate(boxes)
    ]
    return {"file_name": "a.png", "image_id": 1, "height": 96, "width": 96, **more} | {
        "annotations": annotations
    }


def objects(seen):
    rows = zip(seen.record, seen.annotation, strict=True)
    return [seen.records[record]["annotations"][annotation] for record, annotation in rows]


def as_the_mapper(cfg, seed=0):
    """Boxes, classes and sizes of the training mapper, which reads the images."""
    mapper = RetinaDatasetMapper(cfg, is_train=True)
    np.random.seed(seed)
    boxes, classes, sizes = [], [], []
    for item in DatasetCatalog.get(cfg.DATASETS.TRAIN[0]):
        instances = mapper(item)["instances"]
        boxes.append(instances.gt_boxes.tensor)
        classes.append(instances.gt_classes)
        sizes += [instances.image_size] * len(instances)
    return torch.cat(boxes).numpy(), torch.cat(classes).numpy(), np.array(sizes)


@pytest.mark.parametrize("overrides", [NO_FLIP, (RANDOM,)], ids=["resize", "random"])
def test_boxes_are_the_mappers(cfg_of, overrides):
    cfg = cfg_of(*overrides)
    seen = seen_boxes(cfg, draws=1)
    boxes, classes, sizes = as_the_mapper(cfg)
    assert np.array_equal(seen.boxes, boxes)
    assert np.array_equal(seen.class_id, classes)
    assert np.array_equal(seen.image_size, sizes)
    assert seen.class_names == ("red", "green", "blue")


def test_colours_move_no_box_and_are_not_computed(cfg_of, monkeypatch):
    cfg = cfg_of(f"INPUT.AUGMENTATIONS=[{COLOURS}]")
    monkeypatch.setattr(T.RandomContrast, "get_transform", None)
    seen = seen_boxes(cfg, draws=1)
    there = [BoxMode.convert(x["bbox"], x["bbox_mode"], BoxMode.XYXY_ABS) for x in objects(seen)]
    assert np.array_equal(seen.boxes, np.array(there, dtype=np.float32))
    assert (seen.visible == 1).all()


def test_looks_differ_and_the_seed_decides(cfg_of):
    cfg = cfg_of(RANDOM)
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    first, again, other = (seen_boxes(cfg, draws=3, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(np.random.get_state()[1], before)
    assert np.array_equal(first.boxes, again.boxes)
    assert not np.array_equal(first.boxes[:5], other.boxes[:5])
    assert set(first.draw) == {0, 1, 2}
    looks = [first.boxes[(first.draw == d) & (first.record == 0)][:1] for d in range(3)]
    assert len({look.tobytes() for look in looks}) > 1


def test_the_test_split_is_seen_once_as_it_is_tested(cfg_of):
    cfg = cfg_of(RANDOM, "INPUT.AUGMENTATIONS_TEST=[{'NAME': 'Zoom', 'factor': 2.0}]")
    seen = seen_boxes(cfg, "test")
    assert set(seen.draw) == {0} and (seen.image_size == 192).all()
    widths = [x["bbox"][2] for x in objects(seen)]
    assert np.allclose(seen.boxes[:, 2] - seen.boxes[:, 0], 2 * np.array(widths))
    assert np.allclose(seen.file_area * 4, (seen.boxes[:, 2:] - seen.boxes[:, :2]).prod(1))


def test_crowd_and_boxes_without_area_are_counted(cfg_of):
    odd = record((1, 1, 20, 20), (5, 5, 30, 30), (7, 7, 0, 9), (40, 40, 9, 9), crowd=[1])
    seen = seen_boxes(trained_on(cfg_of(*NO_FLIP), [odd]), draws=1)
    assert seen.annotation.tolist() == [0, 3]
    assert seen.left_out == {"crowd": 1, "without area": 1}


def test_a_crop_says_how_much_it_left(cfg_of):
    half = record((0, 0, 96, 96))
    crop = "[{'NAME': 'RandomCrop', 'crop_type': 'absolute', 'crop_size': [48, 96]}]"
    seen = seen_boxes(trained_on(cfg_of(f"INPUT.AUGMENTATIONS={crop}"), [half]), draws=1)
    assert seen.visible.tolist() == [0.5] and seen.image_size.tolist() == [[48, 96]]


def test_training_tiles_are_what_is_seen(cfg_of):
    cfg = cfg_of("INPUT.TILES.TRAIN_SIZE=48", "INPUT.MIN_SIZE_TRAIN=[96]", "INPUT.RANDOM_FLIP=none")
    seen = seen_boxes(cfg, draws=1)
    assert len({(r["file_name"], r["tile"]) for r in seen.records}) > 6
    assert (seen.image_size == 96).all()
    boxes, *_ = as_the_mapper(trained_on(cfg.clone(), list(seen.records)))
    assert np.array_equal(seen.boxes, boxes)


def test_a_record_without_size_has_that_of_its_file(cfg_of):
    cfg = cfg_of(*NO_FLIP)
    records = DatasetCatalog.get(cfg.DATASETS.TRAIN[0])
    bare = [{k: v for k, v in r.items() if k not in ("height", "width")} for r in records]
    other = trained_on(cfg_of(*NO_FLIP), bare)
    assert np.array_equal(seen_boxes(other).boxes, seen_boxes(cfg).boxes)


def test_many_boxes_are_those_of_some_images(cfg_of):
    records = [record(*[(1, 1, 9, 9)] * 10, image_id=i) for i in range(40)]
    cfg = trained_on(cfg_of(*NO_FLIP), records)
    seen = seen_boxes(cfg, draws=2, max_boxes=100)
    assert len(seen) == 100 and seen.images_skipped == 35
    assert len(set(seen.record)) == 5 and seen.record.max() > 10


@pytest.mark.parametrize(
    ("split", "overrides", "message"),
    [
        ("val", (), "train or test"),
        (
            "test",
            ("DATASETS.COCO.TEST.JSON=", "DATASETS.COCO.TEST.IMAGES="),
            "DATASETS.TEST is empty",
        ),
    ],
)
def test_what_is_not_there_is_named(cfg_of, split, overrides, message):
    with pytest.raises(ValueError, match=message):
        seen_boxes(cfg_of(*overrides), split)
