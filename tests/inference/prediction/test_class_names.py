"""Names from wherever the config has them, the data being there or not."""

import pytest
from detectron2.data import MetadataCatalog
from support.block_data import COLOURS, as_overrides, write_blocks
from support.tiny_models import tiny_focal_cfg

from retina_plugin.inference.prediction.class_names import classes_of_config, numbered_classes


@pytest.fixture
def cfg():
    cfg = tiny_focal_cfg(NUM_CLASSES=3)
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
    return cfg


def test_of_the_json_with_its_ids(cfg, tmp_path):
    cfg.merge_from_list(as_overrides(write_blocks(tmp_path, "train", 1), None))
    found = classes_of_config(cfg)
    assert (found.names, found.ids) == (tuple(COLOURS), (1, 2, 3))
    assert "train.json" in found.source
    cfg.DATASETS.COCO.CLASS_NAMES = list(COLOURS)
    assert classes_of_config(cfg).ids == (1, 2, 3)
    cfg.DATASETS.COCO.CLASS_NAMES = ["x", "y", "z"]
    assert classes_of_config(cfg).source == "DATASETS.COCO.CLASS_NAMES"


def test_data_that_are_elsewhere_are_no_mistake(cfg):
    cfg.DATASETS.COCO.TEST.JSON, cfg.DATASETS.COCO.TEST.IMAGES = "gone.json", "gone"
    cfg.DATASETS.TEST = ("gone",)
    assert classes_of_config(cfg) is None
    assert numbered_classes(2).names == ("class 0", "class 1")


def test_of_the_metadata_with_cocos_ids(cfg):
    cfg.DATASETS.TEST = ("coco_2017_val",)
    found = classes_of_config(cfg)
    assert len(found.names) == len(found.ids) == 80
    assert (found.names[79], found.ids[79]) == ("toothbrush", 90)
    to_class = MetadataCatalog.get("coco_2017_val").thing_dataset_id_to_contiguous_id
    assert all(to_class[x] == index for index, x in enumerate(found.ids))
