"""``Run``: the parts of a training or an evaluation, whichever language its config is in."""

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
    """What trainer, doctor, report, predict, compare, anchors and benchmark work on.

    Attributes:
        settings: the settings of the run in the keys of a yaml config. Whatever the config leaves
            to its own objects (the model of a LazyConfig) is described here, not decided.
        log_period: steps between two lines of ``metrics.json``.
        ddp_options: of ``detectron2.engine.create_ddp_model``.
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
        """Refuse a config that the programs of this package cannot work on."""

    @abstractmethod
    def _new_model(self) -> nn.Module:
        """The model on ``MODEL.DEVICE``."""

    def build_model(self) -> nn.Module:
        """The model on ``MODEL.DEVICE``, with the techniques that the settings ask for."""
        return Techniques.from_config(self.settings).apply(self._new_model())

    @abstractmethod
    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of the model's parameters."""

    @abstractmethod
    def build_scheduler(
        self, optimizer: torch.optim.Optimizer
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The schedule of the learning rate, a step of it for each step of the optimizer."""

    @abstractmethod
    def build_train_loader(self, batch_size: int | None = None) -> Iterable[Any]:
        """The loader of the training data.

        Args:
            batch_size: images of a batch, of all workers together; None for
                ``SOLVER.IMS_PER_BATCH``.
        """

    @property
    def images_per_step(self) -> int | None:
        """Images of a step of all workers; None where only the loader knows."""
        return self.settings.SOLVER.IMS_PER_BATCH

    @abstractmethod
    def build_test_loader(self, name: str) -> Iterable[Any]:
        """The loader of a test set; with ``TEST.VALIDATION_LOSS`` its records keep their boxes."""

    @abstractmethod
    def build_mapper(self, is_train: bool, **options: Any) -> DatasetMapper:
        """What makes the input of the model from a record.

        Args:
            is_train: with the augmentations of the training, or of the evaluation.
            options: of :class:`~retina_plugin.data.mapper.RetinaDatasetMapper`; without effect on a
                mapper of the config's own.
        """

    def build_evaluator(self, name: str, output_dir: Path) -> DatasetEvaluator:
        """The evaluator of a test set; it writes into ``output_dir``.

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
        """The backbone with its neck."""

    @abstractmethod
    def build_anchor_generator(self, strides: Sequence[int]) -> nn.Module:
        """The anchor generator.

        Args:
            strides: of the levels that the head sees, in pixels.
        """

    @abstractmethod
    def build_assigner(self) -> Any:
        """The assigner of the detector."""

    @abstractmethod
    def overrides_for(self, steps: int) -> list[str]:
        """Overrides with which the training has so many steps, its schedule scaled to them."""

    @abstractmethod
    def text(self) -> str:
        """All that decides the result of the run, to compare it with another."""

    @abstractmethod
    def portable_config(self) -> str:
        """A yaml config from which the model can be built; "" where that takes code."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what ``config.yaml``, which Detectron2 writes, does not hold."""


def counted_detections(settings: CfgNode) -> int | None:
    """How many detections of an image COCO's AP shall count; None for its own number."""
    found = settings.TEST.DETECTIONS_PER_IMAGE
    tiles = settings.INPUT.get("TILES") or {}
    if not tiles.get("TEST_SIZE", 0) or found <= COCOS_DETECTIONS:
        return None
    logger.info(
        f"AP counts TEST.DETECTIONS_PER_IMAGE {found} detections an image, not COCO's "
        f"{COCOS_DETECTIONS}: INPUT.TILES.TEST_SIZE is set, the images are large."
    )
    return found
