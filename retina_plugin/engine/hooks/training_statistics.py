"""What a training is worth looking at for, besides its losses."""

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
    """Puts, every ``period`` steps, into ``metrics.json``, TensorBoard and the other writers:

    * ``positives/level/<name>`` and ``positives/class/<name>``: anchors assigned to an object, an
      image, over the last period; of the first worker's images;
    * ``normalizer``: what the last step's losses were divided by;
    * ``gradient_norm/mean`` and ``gradient_norm/max``: see :class:`GradientNorm`;
    * ``lr/times_<factor>``: of each group of parameters whose rate is another than the largest;
    * ``images``: how many were seen since the training began;
    * ``peak_memory_mib``.

    The period's reads are the only waits for the device. Put it before what writes.

    Args:
        model: what is trained, wrapped for the workers or not; of another detector than
            :class:`FocalRetinaNet` there are no positives and normalizer.
        optimizer: of its parameters.
        images_per_step: of all workers; None where that is not known.
        period: steps.
        class_names: of the classes.
        gradient_norm: a hook of the training step, or None.
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
        """At the period, and after the last step."""
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
    """``lr/times_0.5`` and so on: the rates of groups by what they began with, the largest being 1.

    Empty where all began with the same, which Detectron2 logs as ``lr``.
    """
    rates = [
        (group.get("initial_lr", group["lr"]), group["lr"]) for group in optimizer.param_groups
    ]
    largest = max(initial for initial, _ in rates)
    by_factor = {f"{initial / largest:.3g}": rate for initial, rate in rates} if largest else {}
    if len(by_factor) < 2:
        return {}
    return {f"lr/times_{factor}": rate for factor, rate in by_factor.items()}
