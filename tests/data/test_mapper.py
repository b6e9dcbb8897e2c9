"""Our mapper is Detectron2's with other augmentations."""

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from PIL import Image

from retina_plugin.config import add_retina_config
from retina_plugin.data.mapper import RetinaDatasetMapper

BOXES = [[10, 20, 30, 50], [40, 5, 60, 25]]


@pytest.fixture
def record(tmp_path):
    """A picture of two bright boxes."""
    image = np.zeros((64, 96, 3), np.uint8)
    for x0, y0, x1, y1 in BOXES:
        image[y0:y1, x0:x1] = (250, 200, 150)
    Image.fromarray(image).save(tmp_path / "image.png")
    boxes = [
        {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": i, "iscrowd": 0}
        for i, box in enumerate(BOXES)
    ]
    return {
        "file_name": str(tmp_path / "image.png"),
        "height": 64,
        "width": 96,
        "image_id": 7,
        "annotations": boxes,
    }


def config(*augmentations):
    cfg = add_retina_config(get_cfg())
    cfg.INPUT.AUGMENTATIONS = list(augmentations)
    return cfg


def same(ours, stock):
    assert ours.keys() == stock.keys()
    assert torch.equal(ours["image"], stock["image"])
    if "instances" in stock:
        a, b = ours["instances"], stock["instances"]
        assert torch.equal(a.gt_boxes.tensor, b.gt_boxes.tensor)
        assert torch.equal(a.gt_classes, b.gt_classes)


@pytest.mark.parametrize("is_train", [True, False])
@pytest.mark.parametrize("image_format", ["BGR", "RGB"])
def test_without_a_list_it_is_detectron2s(record, is_train, image_format):
    cfg = config()
    cfg.INPUT.FORMAT = image_format
    outputs = []
    for mapper in (RetinaDatasetMapper, DatasetMapper):
        np.random.seed(3)
        outputs.append(mapper(cfg, is_train)(record))
    same(*outputs)


def test_test_images_are_not_augmented(record):
    """A list for training leaves evaluation as it is."""
    cfg = config({"NAME": "RandomZoomCrop", "size": 32})
    same(RetinaDatasetMapper(cfg, is_train=False)(record), DatasetMapper(cfg, False)(record))


def test_training_images_are_augmented_as_listed(record):
    cfg = config({"NAME": "RandomZoomCrop", "size": 64}, {"NAME": "RandomQuarterTurn"})
    cfg.INPUT.FORMAT = "RGB"
    mapper = RetinaDatasetMapper(cfg, is_train=True)
    for seed in range(10):
        np.random.seed(seed)
        output = mapper(record)
        assert output["image"].shape == (3, 64, 64)
        for box in output["instances"].gt_boxes.tensor.round().long().tolist():
            x0, y0, x1, y1 = box
            inside = output["image"][:, y0:y1, x0:x1]
            assert torch.all(inside == torch.tensor([250, 200, 150])[:, None, None])


def test_boxes_that_a_crop_cuts_off_are_dropped(record):
    record["annotations"][0]["bbox"] = [0, 0, 4, 4]
    mapper = RetinaDatasetMapper(
        is_train=True,
        augmentations=[T.CropTransform(35, 0, 61, 64, 96, 64)],
        image_format="BGR",
    )
    instances = mapper(record)["instances"]
    assert instances.gt_classes.tolist() == [1]
    assert instances.gt_boxes.tensor.tolist() == [[5, 5, 25, 25]]


def test_crowd_boxes_are_no_ground_truth(record):
    record["annotations"][0]["iscrowd"] = 1
    instances = RetinaDatasetMapper(config({"NAME": "RandomQuarterTurn"}), True)(record)[
        "instances"
    ]
    assert instances.gt_classes.tolist() == [1]
