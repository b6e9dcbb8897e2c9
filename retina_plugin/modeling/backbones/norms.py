"""Another norm in place of a network's batch norms, and frozen stages."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from detectron2.layers import FrozenBatchNorm2d
from detectron2.layers.batch_norm import LayerNorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from retina_plugin.registry import unknown_name

AUTO = "auto"


class _ThenParts:
    """A norm that ends with what a batch norm of timm's ends with: dropout, activation."""

    def forward(self, x: Tensor) -> Tensor:
        """The norm, then its children in turn."""
        x = super().forward(x)
        for part in self.children():
            x = part(x)
        return x


class FrozenBatchNormAct2d(_ThenParts, FrozenBatchNorm2d):
    """``FrozenBatchNorm2d`` and an activation."""


class SyncBatchNormAct(_ThenParts, nn.SyncBatchNorm):
    """``SyncBatchNorm`` and an activation."""


class GroupNormAct(_ThenParts, nn.GroupNorm):
    """``GroupNorm`` and an activation."""


class LayerNormAct(_ThenParts, LayerNorm):
    """Detectron2's ``LayerNorm`` of the channels and an activation."""


def _group_norm(cls: type[nn.GroupNorm], old: _BatchNorm) -> nn.GroupNorm:
    return cls(math.gcd(32, old.num_features), old.num_features, eps=old.eps)


# with an activation and without
_NEW: dict[str, tuple[type, type, Callable[[type, _BatchNorm], nn.Module]]] = {
    "FrozenBN": (
        FrozenBatchNormAct2d,
        FrozenBatchNorm2d,
        lambda cls, old: cls(old.num_features, eps=old.eps),
    ),
    "SyncBN": (
        SyncBatchNormAct,
        nn.SyncBatchNorm,
        lambda cls, old: cls(old.num_features, eps=old.eps, momentum=old.momentum),
    ),
    "GN": (GroupNormAct, nn.GroupNorm, _group_norm),
    "LN": (LayerNormAct, LayerNorm, lambda cls, old: cls(old.num_features, eps=old.eps)),
}
NORMS = (AUTO, "BN", *_NEW)


def set_norms(network: nn.Module, norm: str, *, key: str, name: str) -> None:
    """Put another norm in place of every batch norm, in place, with its weights.

    Args:
        network: with ``BatchNorm2d`` s, or subclasses of it that end with an activation.
        norm: ``BN``, ``SyncBN``, ``FrozenBN`` (statistics and scale stay as they are), ``GN`` (32
            groups, or as many as divide the channels), ``LN`` (of the channels of a pixel) or
            ``auto``: batch norms are frozen, as Detectron2's ResNet has them, others stay.
        key: of the config, for errors.
        name: of the network, for errors.

    Raises:
        UnknownNameError: an unknown norm; lists the valid ones.
        ValueError: the network has no batch norm that could be replaced.
    """
    if norm not in NORMS:
        raise unknown_name(key, norm, NORMS)
    has_batch_norm = any(isinstance(module, _BatchNorm) for module in network.modules())
    if not has_batch_norm:
        kinds = {type(m).__name__ for m in network.modules() if "norm" in type(m).__name__.lower()}
        layer_norms = any(isinstance(m, nn.LayerNorm | LayerNorm) for m in network.modules())
        if norm == AUTO or (norm == "LN" and layer_norms):
            return
        raise ValueError(
            f"{key} is {norm}, but {name} has no batch norm that it could replace; its norms are "
            f"{', '.join(sorted(kinds)) or 'none'}: set it to {AUTO}, which leaves them as they are"
        )
    if norm != "BN":
        replace_batch_norms(network, "FrozenBN" if norm == AUTO else norm)


def replace_batch_norms(
    network: nn.Module, norm: str, *, within: Iterable[str] | None = None
) -> None:
    """``norm`` (a key of ``_NEW``) for every batch norm, or for those within the modules named."""
    paths = None if within is None else tuple(within)
    for path, module in list(network.named_modules()):
        if not isinstance(module, _BatchNorm) or (paths is not None and not _is_in(path, paths)):
            continue
        parent, _, name = path.rpartition(".")
        setattr(network.get_submodule(parent), name, _replaced(module, norm))


def freeze(network: nn.Module, paths: Iterable[str]) -> None:
    """Freeze parameters and statistics of the modules at these paths, in place."""
    paths = tuple(paths)
    replace_batch_norms(network, "FrozenBN", within=paths)
    for name, parameter in network.named_parameters():
        if _is_in(name, paths):
            parameter.requires_grad_(False)


def _is_in(path: str, paths: tuple[str, ...]) -> bool:
    return any(path == p or path.startswith(f"{p}.") for p in paths)


def _replaced(old: _BatchNorm, norm: str) -> nn.Module:
    with_parts, plain, build = _NEW[norm]
    parts = dict(old.named_children())
    new = build(with_parts if parts else plain, old)
    for name, part in parts.items():
        setattr(new, name, part)
    state = {name: value for name, value in old.state_dict().items() if "." not in name}
    known = new.state_dict().keys()
    new.load_state_dict({n: value for n, value in state.items() if n in known}, strict=False)
    if isinstance(new, FrozenBatchNorm2d):  # as Detectron2's own conversion
        new.num_batches_tracked = old.num_batches_tracked
    return new.to(next(old.parameters(), old.running_mean).device)
