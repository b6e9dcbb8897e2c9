"""``Run``: the components of a training or evaluation, from either config format."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import Backbone
from torch import nn

from retina_plugin.evaluation.build import build_evaluator
from retina_plugin.modeling.techniques import Techniques

COCOS_DETECTIONS = 100
LOG_PERIOD = 20  # steps, as DefaultTrainer has it

logger = logging.getLogger(__name__)


class Run(ABC):
    """Input of trainer, doctor, report, predict, compare, anchors and benchmark.

    Attributes:
        settings: the settings of the run as yaml config keys. Components that the config defines
            as objects (the model of a LazyConfig) are only described here.
        log_period: steps between two lines of ``metrics.json``.
        ddp_options: options of ``detectron2.engine.create_ddp_model``.
        evaluates_by_type: whether evaluators are chosen by the types of the data sets.
        model_from_settings: whether the model is built from the keys below ``MODEL``.
    """

    log_period: int = LOG_PERIOD
    evaluates_by_type: bool = True
    model_from_settings: bool = True

    def __init__(self, settings: CfgNode) -> None:
        self.settings = settings
        self.ddp_options: dict[str, Any] = {}

    @abstractmethod
    def check(self) -> None:
        """Raise an error for a config that the programs of this package do not support."""

    @abstractmethod
    def _new_model(self) -> nn.Module:
        """Build the model on ``MODEL.DEVICE``."""

    def build_model(self) -> nn.Module:
        """Build the model on ``MODEL.DEVICE``, with the techniques enabled in the settings."""
        return Techniques.from_config(self.settings).apply(self._new_model())

    @abstractmethod
    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Build the optimizer of the model's parameters."""

    @abstractmethod
    def build_scheduler(
        self, optimizer: torch.optim.Optimizer
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Build the learning rate schedule, stepped once per optimizer step."""

    @abstractmethod
    def build_train_loader(self, batch_size: int | None = None) -> Iterable[Any]:
        """Build the training loader.

        Args:
            batch_size: images per batch over all workers; None for
                ``SOLVER.IMS_PER_BATCH``.
        """

    @property
    def images_per_step(self) -> int | None:
        """Return images per step over all workers, or None if only the loader defines it."""
        return self.settings.SOLVER.IMS_PER_BATCH

    @abstractmethod
    def build_test_loader(self, name: str) -> Iterable[Any]:
        """Build the loader of a test set; ``TEST.VALIDATION_LOSS`` keeps the ground truth."""

    @abstractmethod
    def build_mapper(self, is_train: bool, **options: Any) -> DatasetMapper:
        """Build the mapper from a record to the model's input.

        Args:
            is_train: whether to use the augmentations of training or of evaluation.
            options: for :class:`~retina_plugin.data.mapper.RetinaDatasetMapper`; no effect on a
                custom mapper of the config.
        """

    def build_evaluator(self, name: str, output_dir: Path) -> DatasetEvaluator:
        """Build the evaluator of a test set, which writes to ``output_dir``.

        COCO's AP counts 100 detections an image; with ``INPUT.TILES.TEST_SIZE``, where a large
        image has more objects than that, it counts ``TEST.DETECTIONS_PER_IMAGE`` if that is more.
        """
        return build_evaluator(
            name,
            output_dir,
            coco_eval=self.settings.TEST.get("COCO_EVAL", "auto"),
            max_detections=counted_detections(self.settings),
        )

    @abstractmethod
    def build_backbone(self) -> Backbone:
        """Build the backbone with its neck."""

    @abstractmethod
    def build_anchor_generator(self, strides: Sequence[int]) -> nn.Module:
        """Build the anchor generator.

        Args:
            strides: strides of the head's feature levels, in pixels.
        """

    @abstractmethod
    def build_assigner(self) -> Any:
        """Build the assigner of the detector."""

    @abstractmethod
    def overrides_for(self, steps: int) -> list[str]:
        """Return overrides that set the number of steps and scale the schedule accordingly."""

    @abstractmethod
    def text(self) -> str:
        """Return everything that determines the result, to compare runs."""

    @abstractmethod
    def portable_config(self) -> str:
        """Return a yaml config that defines the model, or "" if that requires code."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Save what Detectron2's ``config.yaml`` does not contain."""


def counted_detections(settings: CfgNode) -> int | None:
    """Return the detections per image that COCO's AP counts; None for the default."""
    found = settings.TEST.DETECTIONS_PER_IMAGE
    tiles = settings.INPUT.get("TILES") or {}
    if not tiles.get("TEST_SIZE", 0) or found <= COCOS_DETECTIONS:
        return None
    logger.info(
        f"AP counts TEST.DETECTIONS_PER_IMAGE {found} detections an image, not COCO's "
        f"{COCOS_DETECTIONS}: INPUT.TILES.TEST_SIZE is set, the images are large."
    )
    return found
