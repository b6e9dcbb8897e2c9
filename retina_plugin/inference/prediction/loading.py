"""From a config and weights to a detector that is ready to find boxes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from detectron2.config import CfgNode, instantiate
from detectron2.modeling import build_model
from torch import nn

from retina_plugin.checkpoint.checkpointer import RetinaCheckpointer
from retina_plugin.config.config_file import load_config
from retina_plugin.config.device import available_device
from retina_plugin.config.lazy_file import load_lazy
from retina_plugin.data.class_counts import fill_class_counts
from retina_plugin.data.mapper import RetinaDatasetMapper
from retina_plugin.data.package_files import register_package_paths
from retina_plugin.inference.augmented_inference import augment_inference, prepare_augmentation
from retina_plugin.inference.denormals import flush_denormals
from retina_plugin.inference.evaluated_detector import evaluated_detector, optimized_detector
from retina_plugin.inference.prediction.class_count import classes_in_weights
from retina_plugin.inference.prediction.class_names import (
    ClassNames,
    classes_of_config,
    classes_of_metadata,
    numbered_classes,
)
from retina_plugin.inference.tiled_inference import prepare_tiles
from retina_plugin.modeling.architecture import check_architecture

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
    config: str | Path | CfgNode,
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
    if isinstance(config, str | Path) and Path(config).suffix == ".py":
        return _load_lazy(str(config), weights, overrides, device, score_thresh, class_names)
    if isinstance(config, CfgNode):
        cfg = load_config("", overrides, base=config)
    else:
        cfg = load_config(config, overrides)
    check_architecture(cfg, str(config))
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
    model = build_model(cfg).eval()
    RetinaCheckpointer(model, all_weights=True).load(cfg.MODEL.WEIGHTS)
    detector = evaluated_detector(cfg, model)
    if cfg.TEST.AUG.ENABLED:
        detector = augment_inference(cfg, detector)
    mapper = RetinaDatasetMapper(cfg, is_train=False)
    return LoadedDetector(detector.eval(), mapper, classes, cfg.INPUT.FORMAT)


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


def _load_lazy(
    config: str,
    weights: str | Path | None,
    overrides: Sequence[str],
    device: str | None,
    score_thresh: float | None,
    class_names: Sequence[str] | None,
) -> LoadedDetector:
    """The same of a LazyConfig, which runs as Python; ``dataloader.test.mapper`` resizes."""
    cfg = load_lazy(config, overrides)
    device = available_device(device or cfg.train.device, "train.device")
    if cfg.train.get("flush_denormal", True):
        flush_denormals()
    model = instantiate(cfg.model).to(device).eval()
    _lower_threshold(model, score_thresh)
    path = str(weights or cfg.train.init_checkpoint)
    RetinaCheckpointer(model, all_weights=True).load(path)
    given = instantiate(cfg.dataloader.test.mapper)
    mapper = RetinaDatasetMapper(
        is_train=False,
        augmentations=[given.augmentations],
        image_format=given.image_format,
        **({"decoder": given.decoder} if hasattr(given, "decoder") else {}),
    )
    names = cfg.dataloader.test.dataset.get("names") or ()
    names = (names,) if isinstance(names, str) else names
    known = ClassNames.of(class_names, "class_names") if class_names else classes_of_metadata(names)
    classes = _named(known, model.num_classes, class_names)
    return LoadedDetector(optimized_detector(cfg, model), mapper, classes, given.image_format)


def _lower_threshold(model: nn.Module, score_thresh: float | None) -> None:
    """Of ours, or of Detectron2's RetinaNet."""
    if score_thresh is None:
        return
    holder, name = getattr(model, "post_processor", None), "score_thresh"
    if holder is None:
        holder, name = model, "test_score_thresh"
    setattr(holder, name, min(getattr(holder, name), score_thresh))
