"""From a config and weights to a detector that is ready to find boxes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from torch import nn

from retina_plugin.checkpoint.checkpointer import RetinaCheckpointer
from retina_plugin.config.device import available_device
from retina_plugin.data.class_counts import fill_class_counts
from retina_plugin.data.mapper import RetinaDatasetMapper
from retina_plugin.data.package_files import register_package_paths
from retina_plugin.inference.augmented_inference import augment_inference, prepare_augmentation
from retina_plugin.inference.denormals import flush_denormals
from retina_plugin.inference.evaluated_detector import evaluated_detector
from retina_plugin.inference.prediction.class_count import classes_in_weights
from retina_plugin.inference.prediction.class_names import (
    ClassNames,
    classes_of_config,
    numbered_classes,
)
from retina_plugin.inference.tiled_inference import prepare_tiles
from retina_plugin.runs.load_run import load_run
from retina_plugin.runs.run import Run

logger = logging.getLogger(__name__)


class LoadedDetector(NamedTuple):
    """A detector with what must be done to an image first.

    Attributes:
        model: in evaluation; Detectron2's batch -> its outputs.
        mapper: reads and resizes as in an evaluation.
        classes: what it finds.
        input_format: ``INPUT.FORMAT``.
    """

    model: nn.Module
    mapper: RetinaDatasetMapper
    classes: ClassNames
    input_format: str


def load_detector(
    config: str | Path | CfgNode | Run,
    weights: str | Path | None,
    *,
    overrides: Sequence[str] = (),
    device: str | None = None,
    score_thresh: float | None = None,
    class_names: Sequence[str] | None = None,
) -> LoadedDetector:
    """Build and load what :class:`~retina_plugin.inference.prediction.predictor.Predictor` runs.

    Raises:
        ConfigFileError, UnknownNameError, ValueError, ImportError: see there.
    """
    register_package_paths()
    run = load_run(config, overrides)
    run.check()
    cfg = run.settings
    cfg.MODEL.DEVICE = available_device(device or cfg.MODEL.DEVICE, "MODEL.DEVICE")
    cfg.MODEL.WEIGHTS = str(weights or cfg.MODEL.WEIGHTS)
    classes = _settle_classes(cfg, class_names)
    fill_class_counts(cfg, count=False)
    if score_thresh is not None:
        retinanet = cfg.MODEL.RETINANET
        retinanet.SCORE_THRESH_TEST = min(retinanet.SCORE_THRESH_TEST, score_thresh)
    if cfg.get("FLUSH_DENORMAL", True):
        flush_denormals()
    prepare_tiles(cfg)
    prepare_augmentation(cfg)
    model = run.build_model().eval()
    RetinaCheckpointer(model, all_weights=True).load(cfg.MODEL.WEIGHTS)
    detector = evaluated_detector(cfg, model)
    if cfg.TEST.AUG.ENABLED:
        detector = augment_inference(cfg, detector)
    mapper = _reader(run.build_mapper(False))
    return LoadedDetector(detector.eval(), mapper, classes, mapper.image_format)


def _settle_classes(cfg: CfgNode, given: Sequence[str] | None) -> ClassNames:
    """The classes' names, and their number in ``cfg`` where it has none."""
    known = ClassNames.of(given, "class_names") if given else classes_of_config(cfg)
    retinanet = cfg.MODEL.RETINANET
    if retinanet.NUM_CLASSES is None:
        retinanet.NUM_CLASSES = classes_in_weights(cfg, cfg.MODEL.WEIGHTS)
    return _named(known, retinanet.NUM_CLASSES, given)


def _named(known: ClassNames | None, count: int, given: Sequence[str] | None) -> ClassNames:
    if known is None:
        return numbered_classes(count)
    if len(known.names) == count:
        return known
    what = f"{known.source} names {len(known.names)} classes, the detector has {count}"
    if given:
        raise ValueError(f"{what}: name as many, in the order that it was trained with")
    logger.warning(f"{what}: they are called 'class 0' and so on. Give their names to name them")
    return numbered_classes(count)


def _reader(mapper: DatasetMapper) -> RetinaDatasetMapper:
    """A mapper that reads and resizes as ``mapper`` does, which may be the user's own."""
    if isinstance(mapper, RetinaDatasetMapper):
        return mapper
    names = ("augmentations", "image_format", "decoder")
    found = {name: getattr(mapper, name) for name in names if hasattr(mapper, name)}
    if not {"augmentations", "image_format"} <= found.keys():
        raise ValueError(
            f"{type(mapper).__name__}, the mapper of the test data, has no augmentations and "
            "image_format: how an image is read and resized is not known"
        )
    found["augmentations"] = [found["augmentations"]]
    return RetinaDatasetMapper(is_train=False, **found)
