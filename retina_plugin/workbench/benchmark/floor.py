"""The floor: the same network, forward and backward, under a loss that costs nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from retina_plugin.workbench.benchmark.calibration import head_outputs

GRADIENT = 1e-3  # standard deviation


class FloorModel(nn.Module):
    """A detector's preprocessing, backbone and head; the gradient of its maps is fixed noise.

    What a training step takes beyond it is its loss's, assignment included, and the way back from
    there to the head's maps.

    Args:
        detector: a Detectron2 ``DenseDetector``; shared, not copied.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector
        self._gradients: list[Tensor] = []

    def forward(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """A loss of 0, named ``nothing``."""
        maps = [x for x in _tensors(head_outputs(self.detector, batched_inputs)) if x.requires_grad]
        if not self._gradients:
            self._gradients = [GRADIENT * torch.randn_like(x, requires_grad=False) for x in maps]
        return {"nothing": _FixedGradient.apply(self._gradients, *maps)}


class _FixedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradients: list[Tensor], *maps: Tensor) -> Tensor:
        ctx.gradients = gradients
        return maps[0].new_zeros((), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        return None, *ctx.gradients


def _tensors(outputs: Any) -> Iterator[Tensor]:
    """All tensors in the lists, tuples and dicts that a head returns."""
    if isinstance(outputs, Tensor):
        yield outputs
        return
    for inner in outputs.values() if isinstance(outputs, dict) else outputs:
        yield from _tensors(inner)
