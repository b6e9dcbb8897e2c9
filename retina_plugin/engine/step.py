"""One training step, in any precision and on any device."""

from __future__ import annotations

import time
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from torch import Tensor, nn

from retina_plugin.registry import unknown_name

PRECISIONS = {"float16": torch.float16, "bfloat16": torch.bfloat16}
AUTO = "auto"


class TrainingStep(SimpleTrainer):
    """Detectron2's ``SimpleTrainer`` and ``AMPTrainer`` in one, the latter on the CPU as well.

    Checkpoints of either resume here. Gradients are dropped before the forward pass, not after it,
    which takes less memory, and the losses are read with one transfer for all.

    Args:
        model: on its device.
        loader: of batches.
        optimizer: of the model's parameters.
        precision: of the forward pass' matrices, ``torch.autocast``'s; None for fp32. With float16
            the loss is scaled, as the smallest gradients would be 0.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        loader: Any,
        optimizer: torch.optim.Optimizer,
        precision: torch.dtype | None = None,
    ) -> None:
        super().__init__(model, loader, optimizer, zero_grad_before_forward=True)
        self._device = next(model.parameters()).device.type
        self._precision = precision
        scales = precision is torch.float16
        self.grad_scaler = torch.amp.GradScaler(self._device) if scales else None

    def run_step(self) -> None:
        """Data, forward pass, backward pass, log, optimizer."""
        assert self.model.training, "the model was changed to evaluation mode"
        begin = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - begin
        self.optimizer.zero_grad()
        with torch.autocast(self._device, self._precision, enabled=self._precision is not None):
            losses = self.model(batch)
        total = sum(losses.values())
        (total if self.grad_scaler is None else self.grad_scaler.scale(total)).backward()
        self.after_backward()
        # stops at a loss that is not finite, before the weights learn from it
        self._write_metrics(_on_host(losses), data_time)
        if self.grad_scaler is None:
            self.optimizer.step()
        else:
            self.grad_scaler.step(self.optimizer)  # which clips, where it does, unscaled gradients
            self.grad_scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """Detectron2's, as ``AMPTrainer`` writes it where there is a scaler."""
        state = super().state_dict()
        if self.grad_scaler is not None:
            state["grad_scaler"] = self.grad_scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Of either precision: a scaler that comes is taken where there is one here."""
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
) -> TrainingStep:
    """The training step of the config.

    Args:
        model: on its device.
        loader: of batches.
        optimizer: of the model's parameters.
        amp: ``SOLVER.AMP.ENABLED``.
        precision: ``SOLVER.AMP.PRECISION``; ``auto`` is float16 on CUDA, bfloat16 on the CPU.

    Raises:
        UnknownNameError: an unknown precision; lists the valid ones.
        ValueError: float16 on the CPU.
    """
    device = next(model.parameters()).device.type
    if precision not in (AUTO, *PRECISIONS):
        raise unknown_name("SOLVER.AMP.PRECISION", precision, (AUTO, *PRECISIONS))
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
    )


def _on_host(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """The losses on the CPU, after a single wait for the device."""
    values = torch.stack([loss.detach().float() for loss in losses.values()]).cpu()
    return dict(zip(losses, values, strict=True))
