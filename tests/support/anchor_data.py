"""Registered data sets without images, for what looks at boxes alone."""

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from support.tiny_models import tiny_focal_cfg


def cfg_of_boxes(images: list[list[tuple]], *, size: int = 512, classes: int = 2) -> CfgNode:
    """The tiny detector's config, to be trained on images that are not there.

    Args:
        images: of each its boxes XYXY; box i is of class ``i % classes``.
        size: of their sides, which the config keeps.
        classes: how many.
    """
    records = [
        {
            "file_name": f"{number}.png",
            "image_id": number,
            "height": size,
            "width": size,
            "annotations": [
                {
                    "bbox": [float(v) for v in box],
                    "bbox_mode": BoxMode.XYXY_ABS,
                    "category_id": i % classes,
                }
                for i, box in enumerate(boxes)
            ],
        }
        for number, boxes in enumerate(images)
    ]
    name = f"boxes_{len(DatasetCatalog)}"
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).thing_classes = [f"class {i}" for i in range(classes)]
    cfg = tiny_focal_cfg()
    cfg.DATASETS.TRAIN = (name,)
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP = (size,), "none"
    cfg.INPUT.MAX_SIZE_TRAIN = size
    return cfg


def boxes_of_shape(width: float, height: float, *, count: int, size: int = 512, seed: int = 0):
    """``count`` boxes about so large, anywhere in the image."""
    rng = np.random.default_rng(seed)
    sides = np.array([width, height]) * np.exp(rng.normal(0, 0.05, (count, 2)))
    corner = rng.uniform(0, size - sides)
    return [tuple(x) for x in np.concatenate([corner, corner + sides], axis=1).tolist()]
