"""Modules exchanged for others within a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def with_state_of(module: nn.Module, kind: type[M]) -> M:
    """A module of class ``kind`` with the parameters, buffers, submodules and hooks of ``module``.

    They are shared, so names, optimizers and the handles of hooks stay valid.
    """
    twin = kind.__new__(kind)
    vars(twin).update(vars(module))
    return twin


def swap_modules(
    root: nn.Module, replacement: Callable[[nn.Module], nn.Module | None]
) -> tuple[nn.Module, int]:
    """Exchange modules wherever a module of ``root`` refers to them, in place.

    Plain lists, tuples and dicts are searched as well: Detectron2's FPN and ResNet keep layers
    there. A module that is used twice is exchanged for one module.

    Args:
        root: ``root`` itself may be exchanged.
        replacement: returns what takes the place of a module, or None to keep it.

    Returns:
        ``root`` or what takes its place, and the number of modules exchanged.
    """
    holders = list(root.modules())
    swapped = {m: new for m in holders if (new := replacement(m)) is not None}
    if swapped:
        for holder, origin in (
            *((m, None) for m in holders),
            *((n, m) for m, n in swapped.items()),
        ):
            for registry in (holder._modules, vars(holder)):
                for name, value in registry.items():
                    if value is not origin:  # a wrapper keeps what it wraps
                        registry[name] = _exchanged(value, swapped)
    return swapped.get(root, root), len(swapped)


def _exchanged(value: Any, swapped: dict[nn.Module, nn.Module]) -> Any:
    if isinstance(value, nn.Module):
        return swapped.get(value, value)
    if type(value) is list:
        value[:] = [_exchanged(item, swapped) for item in value]
    elif type(value) is dict:
        value.update({key: _exchanged(item, swapped) for key, item in value.items()})
    elif type(value) is tuple and any(isinstance(item, nn.Module) for item in value):
        return tuple(_exchanged(item, swapped) for item in value)
    return value
