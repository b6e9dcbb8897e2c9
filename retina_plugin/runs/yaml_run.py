"""A run from a yaml config: each component is built from config keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone, build_anchor_generator, build_model
from detectron2.solver import build_lr_scheduler
from torch import nn

from retina_plugin.data.mapper import RetinaDatasetMapper
from retina_plugin.data.train_loader import build_train_loader
from retina_plugin.modeling.architecture import check_architecture
from retina_plugin.modeling.checked_backbone import build_checked_backbone
from retina_plugin.registry import ASSIGNERS
from retina_plugin.runs.run import Run
from retina_plugin.runs.solver import build_optimizer


class YamlRun(Run):
    """A run whose components are defined by config keys.

    Args:
        settings: any Detectron2 config of a RetinaNet.
        source: path of the config file, for error messages.
    """

    def __init__(self, settings: CfgNode, source: str = "") -> None:
        super().__init__(settings)
        self.source = source

    def check(self) -> None:
        """See :func:`~retina_plugin.modeling.architecture.check_architecture`."""
        check_architecture(self.settings, self.source)

    def _new_model(self) -> nn.Module:
        return build_model(self.settings)

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """See :func:`retina_plugin.runs.solver.build_optimizer`."""
        return build_optimizer(self.settings, model)

    def build_scheduler(
        self, optimizer: torch.optim.Optimizer
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Build Detectron2's scheduler ``SOLVER.LR_SCHEDULER_NAME``."""
        return build_lr_scheduler(self.settings, optimizer)

    def build_train_loader(self, batch_size: int | None = None) -> Iterable[Any]:
        """See :func:`retina_plugin.data.train_loader.build_train_loader`."""
        return build_train_loader(self.settings, batch_size=batch_size)

    def build_test_loader(self, name: str) -> Iterable[Any]:
        """Build Detectron2's loader with the plugin's mapper."""
        keeps = self.settings.TEST.get("VALIDATION_LOSS", True)
        mapper = self.build_mapper(False, keep_ground_truth=keeps)
        return build_detection_test_loader(self.settings, name, mapper=mapper)

    def build_mapper(self, is_train: bool, **options: Any) -> RetinaDatasetMapper:
        """Build the plugin's mapper."""
        arguments = RetinaDatasetMapper.from_config(self.settings, is_train)
        return RetinaDatasetMapper(**arguments, **options)

    def build_backbone(self) -> Backbone:
        """Build the backbone, with one input channel per value of ``MODEL.PIXEL_MEAN``."""
        return build_checked_backbone(self.settings, len(self.settings.MODEL.PIXEL_MEAN))

    def build_anchor_generator(self, strides: Sequence[int]) -> nn.Module:
        """Build Detectron2's ``MODEL.ANCHOR_GENERATOR.NAME``."""
        return build_anchor_generator(self.settings, [ShapeSpec(stride=x) for x in strides])

    def build_assigner(self) -> Any:
        """Build ``MODEL.RETINANET.ASSIGNER.NAME``."""
        return ASSIGNERS.build(self.settings)

    def overrides_for(self, steps: int) -> list[str]:
        """Return overrides of all keys that count training steps."""
        solver, mix = self.settings.SOLVER, self.settings.INPUT.MIX
        scale = steps / solver.MAX_ITER
        return [
            f"SOLVER.MAX_ITER={steps}",
            f"SOLVER.STEPS={[max(1, round(step * scale)) for step in solver.STEPS]}",
            f"SOLVER.WARMUP_ITERS={round(solver.WARMUP_ITERS * scale)}",
            f"INPUT.MIX.CLOSE_STEPS={round(mix.CLOSE_STEPS * scale)}",
        ]

    def text(self) -> str:
        """Return the settings as yaml."""
        return self.settings.dump()

    def portable_config(self) -> str:
        """Return the settings as yaml."""
        return self.settings.dump()

    def save(self, folder: Path) -> None:
        """Save nothing, since ``config.yaml`` is complete."""
