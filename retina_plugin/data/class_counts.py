"""Count the training objects of each class, for losses that balance classes."""

from __future__ import annotations

import logging

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from retina_plugin.registry import CLS_LOSSES

logger = logging.getLogger(__name__)


def count_classes(names: list[str] | tuple[str, ...], num_classes: int) -> list[int]:
    """Count the objects of each class in registered data sets, without crowds.

    Args:
        names: names in ``DatasetCatalog``.
        num_classes: K, the number of classes.
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
    """Fill in ``COUNTS`` of the selected classification loss, if it has that key and it is empty.

    A loss whose ``WEIGHTS`` are set needs no counts and is left unchanged.

    Args:
        cfg: a config that is not frozen and whose data sets are registered; changed in place.
        count: whether to count the training set. If False (the loss is built but not used, and the
            training set may be missing), every class gets a count of 1.
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
    logger.info(f"MODEL.RETINANET.CLS_LOSS.{name}.COUNTS: {counts}, counted in the training set")
