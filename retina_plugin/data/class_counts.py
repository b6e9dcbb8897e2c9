"""How many objects of each class there are to train on, for losses that balance the classes."""

from __future__ import annotations

import logging

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from retina_plugin.registry import CLS_LOSSES

logger = logging.getLogger(__name__)


def count_classes(names: list[str] | tuple[str, ...], num_classes: int) -> list[int]:
    """Objects of each class in registered data sets; crowds are not counted.

    Args:
        names: of ``DatasetCatalog``.
        num_classes: K.
    """
    counts = [0] * num_classes
    for name in names:
        for record in DatasetCatalog.get(name):
            for annotation in record.get("annotations", ()):
                if not annotation.get("iscrowd", 0) and 0 <= annotation["category_id"] < len(
                    counts
                ):
                    counts[annotation["category_id"]] += 1
    return counts


def fill_class_counts(cfg: CfgNode, *, count: bool = True) -> None:
    """Count the training data where the chosen classification loss has ``COUNTS`` and no value.

    A loss that has ``WEIGHTS`` as well is left alone if these are given.

    Args:
        cfg: not frozen, its data sets registered; changed in place.
        count: False where the loss is built but never used, and the training data may be away:
            one object of each class then.
    """
    name = CLS_LOSSES.selected(cfg)
    settings = cfg.MODEL.RETINANET.get("CLS_LOSS", {}).get(name, {})
    if "COUNTS" not in settings or settings.COUNTS or settings.get("WEIGHTS"):
        return
    num_classes = cfg.MODEL.RETINANET.NUM_CLASSES
    if not count:
        settings.COUNTS = (1,) * num_classes
        return
    counts = count_classes(cfg.DATASETS.TRAIN, num_classes)
    settings.COUNTS = tuple(counts)
    logger.info(f"MODEL.RETINANET.CLS_LOSS.{name}.COUNTS of the training data: {counts}")
