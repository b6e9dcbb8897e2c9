"""Small data sets in Detectron2's format, and what `check_datasets` says of them."""

import logging

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from PIL import Image

from retina_plugin import add_retina_config
from retina_plugin.data.checks import check_datasets
from retina_plugin.data.findings import DataError

WIDTH, HEIGHT = 40, 30


def make_records(folder, *images, name="set", suffix="png", **metadata):
    """Register the data set `name` of one image file for each list of annotations."""
    records = []
    for index, annotations in enumerate(images):
        path = folder / f"{index}.{suffix}"
        pixels = np.random.default_rng(index).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(pixels).save(path)
        records.append(
            {
                "file_name": str(path),
                "image_id": index,
                "width": WIDTH,
                "height": HEIGHT,
                "annotations": annotations,
            }
        )
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(**metadata)
    return records


def box(x=2, y=3, w=10, h=12, mode=BoxMode.XYWH_ABS, category_id=0, **more):
    return {"bbox": [x, y, w, h], "bbox_mode": mode, "category_id": category_id, **more}


def config(train=("set",), test=(), num_classes=2, **datasets):
    cfg = get_cfg()
    add_retina_config(cfg)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = train, test
    cfg.MODEL.RETINANET.NUM_CLASSES = num_classes
    cfg.DATASETS.update(datasets)
    return cfg


def error_of(cfg, train=True):
    with pytest.raises(DataError) as error:
        check_datasets(cfg, train=train)
    return str(error.value)


def told(cfg, caplog, train=True):
    """Findings by level: the messages, which are logged too."""
    caplog.clear()
    caplog.set_level(logging.INFO)
    findings = check_datasets(cfg, train=train)
    for finding in findings:
        assert str(finding) in caplog.text
    return {level: [str(x) for x in findings if x.level == level] for level in (20, 30, 40)}
