"""Save and restore the state that a forward pass changes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.utils.events import EventStorage
from torch import Tensor, nn


class StateBefore:
    """Copy of a model's buffers (normalizer, norm statistics) and the random number state.

    Includes numeric attributes of the model: Detectron2's RetinaNet keeps its normalizer
    there.

    Saving takes a few copies on the device and no synchronization: frozen norms, most of a
    ResNet's buffers, do not change and are skipped.

    Args:
        model: not wrapped for the workers.

    Attributes:
        random: states of the random number generators that the model uses, by device.
    """

    def __init__(self, model: nn.Module) -> None:
        self.random: dict[str, Tensor] = {}
        self._on_cuda = next(model.parameters()).is_cuda
        self._modules = [
            module
            for module in model.modules()
            if module._buffers and not isinstance(module, FrozenBatchNorm2d)
        ]
        self._model = model
        self._numbers: dict[str, float | Tensor] = {}
        self._copies: dict[tuple[nn.Module, str], tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def remember(self) -> None:
        """Save the state before the forward pass."""
        self.random = _random_state(self._on_cuda)
        attributes = vars(self._model).items()
        self._numbers = {k: x for k, x in attributes if isinstance(x, float | int | Tensor)}
        by_kind: dict[tuple, tuple[list[Tensor], list[Tensor]]] = defaultdict(lambda: ([], []))
        for module in self._modules:
            for name, buffer in module._buffers.items():
                if buffer is None:
                    continue
                _, copy = self._copies.get((module, name), (None, None))
                if copy is None or copy.shape != buffer.shape or copy.device != buffer.device:
                    copy = torch.empty_like(buffer)
                self._copies[module, name] = buffer, copy
                copies, originals = by_kind[buffer.dtype, buffer.device]
                copies.append(copy)
                originals.append(buffer)
        for copies, originals in by_kind.values():
            torch._foreach_copy_(copies, originals)

    @torch.no_grad()
    def restore(self) -> None:
        """Restore the saved state, including the identity of the tensor objects."""
        vars(self._model).update(self._numbers)
        for (module, name), (buffer, copy) in self._copies.items():
            if name in module._buffers:
                buffer.copy_(copy)
                module._buffers[name] = buffer

    @contextmanager
    def passes_without_trace(self) -> Iterator[None]:
        """Context manager for forward passes that leave buffers, random state and log unchanged.

        Inside, the buffers are those before the step. Call :meth:`rewind` before each pass.
        """
        present = _random_state(self._on_cuda)
        try:
            with EventStorage(1):
                yield
        finally:
            self.restore()
            set_random_state(present)

    def rewind(self) -> None:
        """Reset the state to that before the step."""
        self.restore()
        set_random_state(self.random)


def _random_state(on_cuda: bool) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if on_cuda:
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_state(states: dict[str, Tensor]) -> None:
    """Set the generator states by device; missing devices are skipped."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
