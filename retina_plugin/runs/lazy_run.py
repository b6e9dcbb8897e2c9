"""A run from a LazyConfig: each component is instantiated from its node."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import yaml
from detectron2.config import LazyConfig, instantiate
from detectron2.data import (
    DatasetCatalog,
    DatasetMapper,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.evaluation import (
    COCOEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    LVISEvaluator,
    PascalVOCDetectionEvaluator,
)
from detectron2.modeling import Backbone
from detectron2.solver import LRMultiplier
from detectron2.solver.build import maybe_add_gradient_clipping
from omegaconf import DictConfig, ListConfig
from torch import nn

from retina_plugin.config.safe_yaml import ConfigFileError
from retina_plugin.data.mapper import RetinaDatasetMapper
from retina_plugin.data.train_loader import build_train_loader
from retina_plugin.modeling.assigners.max_iou_assigner import MaxIoUAssigner
from retina_plugin.runs.lazy_keys import home_of, plain, write_back
from retina_plugin.runs.lazy_settings import LazySettings, as_text, target_of
from retina_plugin.runs.run import Run

STOCK_EVALUATORS = (COCOEvaluator, LVISEvaluator, PascalVOCDetectionEvaluator)
STOCK_MAPPERS = (DatasetMapper, RetinaDatasetMapper)
# Arguments that yaml config keys can express, too
OF_TRAIN_LOADER = {
    *("_target_", "dataset", "mapper", "total_batch_size", "num_workers", "aspect_ratio_grouping")
}
OF_DATA = {"_target_", "names", "filter_empty"}
SAVED = "lazy_config.yaml"


class LazyRun(Run):
    """A run built from ``model``, ``optimizer``, ``dataloader`` etc. of a LazyConfig.

    Detectron2's ``DatasetMapper`` is replaced by the plugin's, which also supports ``INPUT``'s
    further keys; so is its loader, if the LazyConfig sets no more of it than a yaml can.

    Args:
        settings: result of ``load_lazy_settings``.
    """

    model_from_settings = False

    def __init__(self, settings: LazySettings) -> None:
        super().__init__(settings)
        train = settings.__dict__["lazy"].train
        self.log_period = train.get("log_period", self.log_period)
        self.ddp_options = plain(train.get("ddp")) or {}
        evaluator = settings.__dict__["lazy"].dataloader.get("evaluator")
        self.evaluates_by_type = evaluator is None or (
            target_of(evaluator) in STOCK_EVALUATORS
            and not {*evaluator} - {"_target_", "dataset_name"}
        )

    @property
    def images_per_step(self) -> int | None:
        """Return ``dataloader.train.total_batch_size``, or None if the loader has none."""
        node = self.settings.__dict__["lazy"].dataloader.train
        return super().images_per_step if "total_batch_size" in node else None

    @property
    def lazy(self) -> DictConfig:
        """Copy of the LazyConfig with the changes made to the settings since it was read.

        Raises:
            ConfigFileError: if the LazyConfig has no place for a changed setting.
        """
        lazy = deepcopy(self.settings.__dict__["lazy"])
        for key, value in self.settings.changed():
            if not write_back(lazy, key, value):
                raise ConfigFileError(
                    f"{key} {value}: {self.settings.__dict__['source']} has no {home_of(key)}"
                )
        return lazy

    def check(self) -> None:
        """Accept any detector."""

    def _new_model(self) -> nn.Module:
        return instantiate(self.lazy.model).to(self.settings.MODEL.DEVICE)

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Build ``optimizer``, with the clipping of ``SOLVER.CLIP_GRADIENTS``."""
        node = self.lazy.optimizer
        node.params.model = model
        return maybe_add_gradient_clipping(self.settings, instantiate(node))

    def build_scheduler(
        self, optimizer: torch.optim.Optimizer
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Build the schedule from ``lr_multiplier``."""
        multiplier = instantiate(self.lazy.lr_multiplier)
        return LRMultiplier(optimizer, multiplier, max_iter=self.settings.SOLVER.MAX_ITER)

    def build_train_loader(self, batch_size: int | None = None) -> Iterable[Any]:
        """Build ``dataloader.train``."""
        node = self.lazy.dataloader.train
        batch_size = batch_size or self.settings.SOLVER.IMS_PER_BATCH
        mapper = self.build_mapper(True) if "mapper" in node else None
        stock = target_of(node) is build_detection_train_loader and not {*node} - OF_TRAIN_LOADER
        if stock and _is_stock(node.get("dataset")) and isinstance(mapper, RetinaDatasetMapper):
            return build_train_loader(self.settings, mapper, batch_size=batch_size)
        given = {"total_batch_size": batch_size} if "total_batch_size" in node else {}
        filtered = (node.get("dataset") or {}).get("filter_empty", True)
        return self._loader(node, self.settings.DATASETS.TRAIN, mapper, filtered, **given)

    def build_test_loader(self, name: str) -> Iterable[Any]:
        """Build ``dataloader.test`` for one test set."""
        node = self.lazy.dataloader.test
        keeps = self.settings.TEST.VALIDATION_LOSS
        mapper = self.build_mapper(False, keep_ground_truth=keeps) if "mapper" in node else None
        return self._loader(node, (name,), mapper, False)

    def _loader(
        self, node: DictConfig, names: Sequence[str], mapper: Any, filter_empty: bool, **given: Any
    ) -> Iterable[Any]:
        """Build a loader of the LazyConfig on registered data sets."""
        if "dataset" in node and (_is_stock(node.dataset) or len(names) > 1):
            given["dataset"] = get_detection_dataset_dicts(names, filter_empty=filter_empty)
        elif "dataset" in node:
            given["dataset"] = DatasetCatalog.get(names[0])
        if mapper is not None:
            given["mapper"] = mapper
        rest = {k: instantiate(x) for k, x in node.items() if k != "_target_" and k not in given}
        return target_of(node)(**rest, **given)

    def build_mapper(self, is_train: bool, **options: Any) -> Any:
        """Build ``dataloader.train.mapper`` or ``dataloader.test.mapper``."""
        node = self.lazy.dataloader["train" if is_train else "test"].mapper
        if target_of(node) not in STOCK_MAPPERS:
            return instantiate(node)
        arguments = {k: instantiate(x) for k, x in node.items() if k != "_target_"}
        own = RetinaDatasetMapper.own_arguments(self.settings)
        return RetinaDatasetMapper(**{**own, **arguments, **options})

    def build_evaluator(self, name: str, output_dir: Path) -> DatasetEvaluator:
        """Build ``dataloader.evaluator``; if it is Detectron2's, choose by type of data set."""
        if self.evaluates_by_type:
            return super().build_evaluator(name, output_dir)
        node = self.lazy.dataloader.evaluator
        if isinstance(node, ListConfig):
            return DatasetEvaluators([_evaluator(x, name, output_dir) for x in node])
        return _evaluator(node, name, output_dir)

    def build_backbone(self) -> Backbone:
        """Build ``model.backbone``."""
        return instantiate(self.lazy.model.backbone)

    def build_anchor_generator(self, strides: Sequence[int]) -> nn.Module:
        """Build ``model.anchor_generator``, which defines its own strides."""
        return instantiate(self.lazy.model.anchor_generator)

    def build_assigner(self) -> Any:
        """Build ``model.assigner``, or the equivalent of Detectron2's ``anchor_matcher``."""
        node = self.lazy.model.get("assigner")
        if node is None:
            return MaxIoUAssigner(**MaxIoUAssigner.from_config(self.settings))
        return instantiate(node)

    def overrides_for(self, steps: int) -> list[str]:
        """Override only step counts; the learning rate schedule is relative to the length."""
        scale = steps / self.settings.SOLVER.MAX_ITER
        close = round(self.settings.INPUT.MIX.CLOSE_STEPS * scale)
        return [f"SOLVER.MAX_ITER={steps}", f"INPUT.MIX.CLOSE_STEPS={close}"]

    def text(self) -> str:
        """Return the settings, and the objects by name."""
        return self.settings.dump() + yaml.safe_dump(as_text(self.lazy))

    def portable_config(self) -> str:
        """Return "", since a LazyConfig is code."""
        return ""

    def save(self, folder: Path) -> None:
        """Save ``lazy_config.yaml`` in Detectron2's format."""
        LazyConfig.save(self.lazy, str(folder / SAVED))


def _is_stock(data: Any) -> bool:
    """Whether a data set node only names registered data sets."""
    return target_of(data) is get_detection_dataset_dicts and not {*data} - OF_DATA


def _evaluator(node: DictConfig, name: str, output_dir: Path) -> DatasetEvaluator:
    node = deepcopy(node)
    if "dataset_name" in node:
        node.dataset_name = name
    if "output_dir" not in node and "output_dir" in inspect.signature(target_of(node)).parameters:
        node.output_dir = str(output_dir)
    return instantiate(node)
