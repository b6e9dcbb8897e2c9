"""One training step, in any precision and on any device."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from retina_plugin.config.keys import check_choice
from retina_plugin.engine.accumulation import require_accumulable
from retina_plugin.engine.non_finite.guard import NonFiniteGuard
from retina_plugin.modeling.data_parallel import inner_model
from retina_plugin.modeling.normalizers.accumulated_normalizer import AccumulatedNormalizer
from retina_plugin.modeling.weight_average import WeightAverage

PRECISIONS = {"float16": torch.float16, "bfloat16": torch.bfloat16}
AUTO = "auto"


class TrainingStep(SimpleTrainer):
    """Combination of Detectron2's ``SimpleTrainer`` and ``AMPTrainer``, with AMP also on the CPU.

    Resumes checkpoints of both. Gradients are cleared before the forward pass, not after it,
    which saves memory, and all losses are read with a single transfer.

    With ``accumulate`` n, a step takes n batches of the loader and is equivalent to one with all
    their images, see :class:`AccumulatedNormalizer`, except for the following differences:

    * images are padded to the largest of their micro-batch, not of the step, which may lead to
      fewer anchors in the padding;
    * trainable batch norms see one micro-batch at a time and update their statistics n times;
    * ``LOSS.BOXES_BY`` scales its weights to a mean of 1 within each micro-batch, instead of
      within the step (``quality`` with ``LOSS.COUNT: quality`` needs no scaling and is exact);
    * a loss that a detector does not divide by the normalizer is weighted like the others:
      a mean over the images then counts about ``(n + 1) / 2`` times;
    * ``EqualizedFocalLoss`` counts its gradients after each micro-batch, so that the next one
      already uses updated exponents;
    * ``num_pos_anchors`` is logged per micro-batch, and ``VIS_PERIOD`` draws a picture for each.

    Args:
        model: the model on its device.
        loader: iterable of batches.
        optimizer: optimizer of the model's parameters.
        precision: ``torch.autocast`` dtype of the forward pass, or None for fp32. With float16
            the loss is scaled to prevent small gradients from underflowing.
        accumulate: number of batches per step.
        average: average of the model's weights, updated after the optimizer (even if the scaler
            skipped the step: checking that would require a synchronization).
        guard: guard against non-finite losses; None for one that stops and writes no files.

    Raises:
        ValueError: if the model cannot accumulate, see :func:`require_accumulable`.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        loader: Any,
        optimizer: torch.optim.Optimizer,
        precision: torch.dtype | None = None,
        accumulate: int = 1,
        average: WeightAverage | None = None,
        guard: NonFiniteGuard | None = None,
    ) -> None:
        super().__init__(model, loader, optimizer, zero_grad_before_forward=True)
        self._is_parallel = isinstance(model, DistributedDataParallel)
        if accumulate > 1:
            require_accumulable(self._detector)
        self._accumulate = accumulate
        self._average = average
        self._guard = guard or NonFiniteGuard(self._detector, optimizer)
        self._device = next(model.parameters()).device.type
        self._precision = precision
        scales = precision is torch.float16
        self.grad_scaler = torch.amp.GradScaler(self._device) if scales else None

    def run_step(self) -> None:
        """Load data, run forward and backward pass, check the losses, log, update the weights."""
        assert self.model.training, "the model was changed to evaluation mode"
        begin = time.perf_counter()
        batches = [next(self._data_loader_iter) for _ in range(self._accumulate)]
        data_time = time.perf_counter() - begin
        self._guard.remember()
        self.optimizer.zero_grad()
        if len(batches) > 1:
            losses = self._accumulated(batches)
        else:
            losses = self._forward(batches[0])
            self._backward(losses)
        self.after_backward()
        read = _on_host({**losses, **self._guard.signs(losses, self.grad_scaler)})
        if not self._is_accepted(read, batches):  # do not update the weights
            return
        self._write_metrics(read, data_time)
        if self.grad_scaler is None:
            self.optimizer.step()
        else:
            self.grad_scaler.step(self.optimizer)  # clips unscaled gradients, if enabled
            self.grad_scaler.update()
        if self._average is not None:
            self._average.update()

    @property
    def _detector(self) -> nn.Module:
        return inner_model(self.model)

    def _is_accepted(self, read: dict[str, Tensor], batches: list[Any]) -> bool:
        return self._guard.accepts(
            read,
            step=self.iter,
            batches=batches,
            autocast=self._autocast,
            precision=str(self._precision or torch.float32).removeprefix("torch."),
        )

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device, self._precision, enabled=self._precision is not None)

    def _forward(self, batch: Any, **options: Any) -> dict[str, Tensor]:
        with self._autocast():
            return self.model(batch, **options)

    def _backward(self, losses: dict[str, Tensor]) -> None:
        total = sum(losses.values())
        (total if self.grad_scaler is None else self.grad_scaler.scale(total)).backward()

    def _accumulated(self, batches: list[Any]) -> dict[str, Tensor]:
        """Run forward and backward passes of the micro-batches; return the losses of the step."""
        normalizer = AccumulatedNormalizer(self._detector.normalizer, len(batches))
        sums: dict[str, Tensor] = {}
        for part, batch in enumerate(batches, start=1):
            # workers exchange the summed gradients with the last micro-batch only
            alone = self._is_parallel and part < len(batches)
            with self.model.no_sync() if alone else nullcontext():
                losses = self._forward(batch, normalizer=normalizer)
                if normalizer.rescale is not None:
                    gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
                    torch._foreach_mul_(gradients, normalizer.rescale)
                    sums = {name: loss * normalizer.rescale for name, loss in sums.items()}
                self._backward(losses)
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0) + loss.detach()
        return sums

    def state_dict(self) -> dict[str, Any]:
        """Return Detectron2's state dict, in ``AMPTrainer``'s format if a scaler is used."""
        state = super().state_dict()
        if self.grad_scaler is not None:
            state["grad_scaler"] = self.grad_scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict of any precision; use its scaler state if this step has a scaler."""
        super().load_state_dict(state_dict)
        if self.grad_scaler is not None and "grad_scaler" in state_dict:
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])


def build_step(
    model: nn.Module,
    loader: Any,
    optimizer: torch.optim.Optimizer,
    *,
    amp: bool,
    precision: str = AUTO,
    accumulate: int = 1,
    average: WeightAverage | None = None,
    guard: NonFiniteGuard | None = None,
) -> TrainingStep:
    """Build the training step from the config.

    Args:
        model: the model on its device.
        loader: iterable of batches.
        optimizer: optimizer of the model's parameters.
        amp: ``SOLVER.AMP.ENABLED``.
        precision: ``SOLVER.AMP.PRECISION``; ``auto`` is float16 on CUDA, bfloat16 on the CPU.
        accumulate: ``SOLVER.ACCUMULATE``.
        average: weight average of ``SOLVER.WEIGHT_AVERAGE``.
        guard: guard of ``SOLVER.NON_FINITE``.

    Raises:
        UnknownNameError: if the precision is unknown; lists the valid ones.
        ValueError: if float16 is set on the CPU, or the model cannot accumulate.
    """
    device = next(model.parameters()).device.type
    check_choice("SOLVER.AMP.PRECISION", precision)
    if precision == AUTO:
        precision = "bfloat16" if device == "cpu" else "float16"
    if amp and precision == "float16" and device == "cpu":
        raise ValueError(
            "SOLVER.AMP.PRECISION is float16, which trains on CUDA only, and the model is on the "
            "CPU: set it to bfloat16 or auto"
        )
    return TrainingStep(
        model=model,
        loader=loader,
        optimizer=optimizer,
        precision=PRECISIONS[precision] if amp else None,
        accumulate=accumulate,
        average=average,
        guard=guard,
    )


def _on_host(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """Move the losses to the CPU with a single synchronization."""
    values = torch.stack([loss.detach().float() for loss in losses.values()]).cpu()
    return dict(zip(losses, values, strict=True))
