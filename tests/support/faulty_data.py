"""A COCO json of a user's own, with five faults planted in it."""

import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from retina_plugin.data.coco_json import CocoDataset

CLASSES = ["bolt", "nut", "washer"]
SIDE = 256
CONFIG = """\
MODEL:
  META_ARCHITECTURE: FocalRetinaNet
  DEVICE: cpu
  WEIGHTS: ""
  BACKBONE: {NAME: build_retinanet_mobilenet_v2_fpn_backbone}
  FPN: {IN_FEATURES: [res3, res4, res5], OUT_CHANNELS: 64}
  RETINANET: {NUM_CONVS: 1}
  ANCHOR_GENERATOR: {NAME: OctaveAnchorGenerator, SIZES: [[64], [128], [256], [512], [1024]]}
DATASETS:
  COCO:
    TRAIN: {JSON: train.json, IMAGES: images}
    TEST: {JSON: val.json, IMAGES: images}
INPUT: {MIN_SIZE_TRAIN: [256], MIN_SIZE_TEST: 256, FORMAT: RGB}
SOLVER: {IMS_PER_BATCH: 4, BASE_LR: 0.0025, MAX_ITER: 60, STEPS: [40], WARMUP_ITERS: 10}
DATALOADER: {NUM_WORKERS: 0}
OUTPUT_DIR: output
VERSION: 2
"""


def write_faulty_data(folder: Path, *, faulty: bool = True) -> Path:
    """Write ``my.yaml``, ``train.json``, ``val.json`` and ``images/``; returns the config's path.

    The faults: the ids of two classes are swapped in ``val.json``; ten boxes of ``train.json`` lie
    outside their images; three images cannot be read; one image of ``train.json`` is in
    ``val.json`` too, under another name; the anchors are too large for most boxes.
    """
    images = folder / "images"
    images.mkdir(parents=True)
    train = _dataset(images, "train", 24, CLASSES)
    val = _dataset(images, "val", 8, ["nut", "bolt", "washer"] if faulty else CLASSES)
    if faulty:
        for image_id in range(1, 11):
            train.add_box(image_id, (SIDE + 20, 30, SIDE + 50, 60))
        for index in (3, 11, 19):
            path = images / f"train_{index:03d}.jpg"
            path.write_bytes(path.read_bytes()[:900])
        shutil.copy(images / "train_005.jpg", images / "val_008.jpg")
        image_id = val.add_image("val_008.jpg", SIDE, SIDE)
        boxes = [x for x in train.annotations if x["image_id"] == 6 and x["bbox"][0] < SIDE]
        for x in boxes:
            x0, y0, width, height = x["bbox"]
            val.add_box(image_id, (x0, y0, x0 + width, y0 + height), x["category_id"] - 1)
    train.save(folder / "train.json")
    val.save(folder / "val.json")
    config = folder / "my.yaml"
    config.write_text(CONFIG if faulty else CONFIG.replace(LARGE, SMALL))
    return config


LARGE = "[[64], [128], [256], [512], [1024]]"
SMALL = "[[16], [32], [64], [128], [256]]"


def _dataset(images: Path, split: str, count: int, names: list[str]) -> CocoDataset:
    """Images of noise with blocks of 14 to 44 pixels, each class in every image."""
    rng = np.random.default_rng(len(split))
    dataset = CocoDataset(names)
    for index in range(count):
        image = rng.integers(60, 160, (SIDE, SIDE, 3), dtype=np.uint8)
        name = f"{split}_{index:03d}.jpg"
        image_id = dataset.add_image(name, SIDE, SIDE)
        for row in range(6):
            side = int(rng.integers(14, 44))
            x, y = int(rng.integers(0, SIDE - side)), 42 * row
            image[y : y + side, x : x + side] = 40 * (1 + CLASSES.index(CLASSES[row % 3]))
            label = names.index(CLASSES[row % 3])
            dataset.add_box(image_id, (x, y, x + side, min(y + side, SIDE)), label)
        Image.fromarray(image).save(images / name, quality=90)
    return dataset


def class_names(path: Path) -> dict[int, str]:
    """Id -> name of a json's categories."""
    return {x["id"]: x["name"] for x in json.loads(path.read_text())["categories"]}
