"""Training statistics besides the losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.engine.train_loop import HookBase
from torch import Tensor, nn

from retina_plugin.engine.hooks.gradient_norm import GradientNorm
from retina_plugin.engine.hooks.positive_counts import PositiveCounts
from retina_plugin.engine.peak_memory import peak_memory_bytes
from retina_plugin.modeling.data_parallel import inner_model
from retina_plugin.modeling.detector import FocalRetinaNet

MIB = 2**20


class TrainingStatistics(HookBase):
    """Log the following scalars to all writers (``metrics.json``, TensorBoard, ...) periodically:

    * ``positives/level/<name>`` and ``positives/class/<name>``: positive anchors per
      image over the last period, counted on the first worker;
    * ``normalizer``: divisor of the last step's losses;
    * ``gradient_norm/mean`` and ``gradient_norm/max``: see :class:`GradientNorm`;
    * ``lr/times_<factor>``: learning rates per parameter group, if these differ;
    * ``images``: number of images since the start of the training;
    * ``peak_memory_mib``.

    Synchronizes with the device only when it logs. Place it before the writers.

    Args:
        model: model in training, with or without a DDP wrapper. For detectors other than
            :class:`FocalRetinaNet`, positives and normalizer are not logged.
        optimizer: optimizer of the model.
        images_per_step: images per step over all workers, or None if unknown.
        period: number of steps between two logs.
        class_names: names of the classes.
        gradient_norm: hook registered on the training step, or None.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        images_per_step: int | None,
        period: int,
        class_names: Sequence[str] = (),
        gradient_norm: GradientNorm | None = None,
    ) -> None:
        detector = inner_model(model)
        self._device = next(detector.parameters()).device
        self._optimizer = optimizer
        self._images_per_step = images_per_step
        self._period = period
        self._gradient_norm = gradient_norm
        self._positives: PositiveCounts | None = None
        self._divisor: Tensor | None = None
        if isinstance(detector, FocalRetinaNet):
            self._positives = PositiveCounts(detector, class_names)
            if isinstance(detector.normalizer, nn.Module):
                detector.normalizer.register_forward_hook(self._keep_divisor())

    def after_step(self) -> None:
        """Log every ``period`` steps and after the last step."""
        steps = self.trainer.iter + 1
        if steps % self._period and steps != self.trainer.max_iter:
            return
        found = dict(rates_by_factor(self._optimizer))
        if self._images_per_step is not None:
            found["images"] = steps * self._images_per_step
        found["peak_memory_mib"] = peak_memory_bytes(self._device) / MIB
        if self._positives is not None:
            found |= self._positives.read()
        if self._divisor is not None:
            found["normalizer"] = self._divisor.item()
        if self._gradient_norm is not None:
            found |= self._gradient_norm.read()
        self.trainer.storage.put_scalars(**found, smoothing_hint=False)

    def _keep_divisor(self) -> Any:
        def keep(module: nn.Module, _: Any, divisor: Tensor) -> None:
            if module.training:
                self._divisor = divisor.detach()

        return keep


def rates_by_factor(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Return learning rates as ``lr/times_<factor>``: initial rate relative to the largest.

    Empty if all groups have the same initial rate, which Detectron2 logs as ``lr``.
    """
    rates = [
        (group.get("initial_lr", group["lr"]), group["lr"]) for group in optimizer.param_groups
    ]
    largest = max(initial for initial, _ in rates)
    by_factor = {f"{initial / largest:.3g}": rate for initial, rate in rates} if largest else {}
    if len(by_factor) < 2:
        return {}
    return {f"lr/times_{factor}": rate for factor, rate in by_factor.items()}
