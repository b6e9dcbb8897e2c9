"""The state that a forward pass changes, as it was before the step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.utils.events import EventStorage
from torch import Tensor, nn


class StateBefore:
    """A model's buffers (normalizer, norms' statistics) and the random numbers' state.

    Also the numbers among the model's own attributes: Detectron2's RetinaNet has its normalizer
    there.

    To remember costs a few copies on the device and no wait: frozen norms, which are most of a
    ResNet's buffers, do not change and are left out.

    Args:
        model: not wrapped for the workers.

    Attributes:
        random: the state of the generators that the model draws from, by device.
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
        """Before the forward pass."""
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
        """What the model had when it was remembered; the same tensor objects, too."""
        vars(self._model).update(self._numbers)
        for (module, name), (buffer, copy) in self._copies.items():
            if name in module._buffers:
                buffer.copy_(copy)
                module._buffers[name] = buffer

    @contextmanager
    def passes_without_trace(self) -> Iterator[None]:
        """Within, forward passes may be made: buffers, random numbers and log are as before it.

        The buffers are then those of before the step. Each pass begins with :meth:`rewind`.
        """
        present = _random_state(self._on_cuda)
        try:
            with EventStorage(1):
                yield
        finally:
            self.restore()
            set_random_state(present)

    def rewind(self) -> None:
        """To before the step."""
        self.restore()
        set_random_state(self.random)


def _random_state(on_cuda: bool) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if on_cuda:
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_state(states: dict[str, Tensor]) -> None:
    """The generators' states by device; a device that is not here is left out."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
