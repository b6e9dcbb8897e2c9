"""Gradient norm per step, computed on the device."""

from __future__ import annotations

import torch
from detectron2.engine.train_loop import HookBase
from torch import Tensor


class GradientNorm(HookBase):
    """Measure the 2-norm of all gradients before clipping.

    With float16 the loss scale is divided out. Steps with a non-finite gradient (the scale was
    too large, and the step is skipped) are not counted. Register it on the training step:
    Detectron2 calls ``after_backward`` only there.
    """

    def __init__(self) -> None:
        self._sum: Tensor | None = None

    @torch.no_grad()
    def after_backward(self) -> None:
        """Add the norm of the step without synchronizing with the device."""
        step = self.trainer
        gradients = [p.grad for p in step.model.parameters() if p.grad is not None]
        if not gradients:
            return
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)).float())
        if step.grad_scaler is not None:
            norm = norm / step.grad_scaler.scale(torch.ones_like(norm))
        if self._sum is None:
            self._sum, self._largest, self._count = (torch.zeros_like(norm) for _ in range(3))
        is_finite = norm.isfinite()
        norm = torch.where(is_finite, norm, 0)
        self._sum += norm
        self._count += is_finite
        self._largest = torch.maximum(self._largest, norm)

    def read(self) -> dict[str, float]:
        """Return mean and maximum since the last call; synchronizes with the device."""
        if self._sum is None:
            return {}
        total, largest, count = torch.stack([self._sum, self._largest, self._count]).tolist()
        self._sum = None
        if not count:
            return {}
        return {"gradient_norm/mean": total / count, "gradient_norm/max": largest}
