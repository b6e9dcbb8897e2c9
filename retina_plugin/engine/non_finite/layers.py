"""Find the layer of a network that turns finite inputs into non-finite outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from retina_plugin.engine.non_finite.finding import Layer

_LEAST_DIM = 3  # of feature maps and tokens; modules such as losses have fewer


class LayerSearch:
    """Context manager that observes every module of a model during one forward pass.

    Finds the innermost layer with finite inputs and non-finite outputs: e.g. the convolution
    whose inner norm received the first infinite value. Each check synchronizes with the device.

    Args:
        model: the model without a DDP wrapper.
        levels: names of the pyramid levels; a module called once per level is reported with
            the level of its input.

    Attributes:
        calls: number of calls per module so far.
    """

    def __init__(self, model: nn.Module, levels: Sequence[str] = ()) -> None:
        self.calls: Counter[str] = Counter()
        self._model = model
        self._levels = list(levels)
        self._got_finite: list[bool] = []
        self._found: tuple[Layer, int] | None = None
        self._first_seen: tuple[Layer, int] | None = None

    def __enter__(self) -> LayerSearch:
        self._handles = []
        for name, module in self._model.named_modules():
            before = self._enter
            self._handles.append(module.register_forward_pre_hook(before, with_kwargs=True))

            def after(module: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
                self._leave(name, module, inputs, output)

            self._handles.append(module.register_forward_hook(after))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    @property
    def layer(self) -> Layer | None:
        """The layer found, or None if all outputs are finite."""
        found = self._found or self._first_seen
        if found is None:
            return None
        layer, call = found
        if self._levels and self.calls[layer.name] == len(self._levels):
            layer.level = self._levels[call]
        return layer

    def _enter(self, module: nn.Module, inputs: tuple, options: dict[str, Any]) -> None:
        self._got_finite.append(all(_is_finite(x) for x in _tensors((inputs, options))))

    def _leave(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        got_finite = self._got_finite.pop()
        call, self.calls[name] = self.calls[name], self.calls[name] + 1
        if not name or self._found is not None:  # the output of the whole model is the losses
            return
        bad = [x for x in _tensors(output) if x.dim() >= _LEAST_DIM and not _is_finite(x)]
        if bad and (got_finite or self._first_seen is None):
            layer = _describe(name, module, inputs, bad[0])
            layer.from_input = not got_finite
            if got_finite:
                self._found = layer, call
            else:
                self._first_seen = layer, call


def _describe(name: str, module: nn.Module, inputs: Any, output: Tensor) -> Layer:
    bad = ~output.isfinite()
    images = bad.flatten(1).any(dim=1).nonzero().flatten().tolist()
    return Layer(
        name=name,
        kind=type(module).__name__,
        images=images,
        bad=int(bad.sum()),
        total=output.numel(),
        dtype=str(output.dtype).removeprefix("torch."),
        largest_input=max((largest(x) for x in _tensors(inputs)), default=0.0),
        largest_weight=max((largest(x) for x in module.parameters()), default=None),
    )


@torch.no_grad()
def largest(tensor: Tensor) -> float:
    """Return the largest absolute value of the finite elements."""
    if not tensor.numel():
        return 0.0
    return float(tensor.detach().float().nan_to_num(0, 0, 0).abs().max())


def _tensors(data: Any) -> list[Tensor]:
    """Return the tensors in tuples, lists, dicts and ``ImageList``."""
    leaves = (getattr(x, "tensor", x) for x in tree_leaves(data))
    return [x for x in leaves if isinstance(x, Tensor)]


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.detach().isfinite().all())
