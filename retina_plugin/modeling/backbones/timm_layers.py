"""The two layers that Detectron2's transformers import of timm, where timm is not installed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

from torch import Tensor, nn
from torchvision.ops import StochasticDepth

_MODULE = "timm.models.layers"


class DropPath(StochasticDepth):
    """torchvision's ``StochasticDepth`` of whole images, as timm's ``DropPath``."""

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__(drop_prob, mode="row")


class Mlp(nn.Module):
    """Two linear layers and an activation, with the names of timm's ``Mlp``."""

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        out_features: int | None = None,
        act_layer: Callable[[], nn.Module] = nn.GELU,
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_features, hidden_features)
        self.act = act_layer()
        self.fc2 = nn.Linear(hidden_features, out_features or in_features)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., C) -> (..., C')``."""
        return self.fc2(self.act(self.fc1(x)))


@contextmanager
def layers_of_timm() -> Iterator[None]:
    """Within it, ``from timm.models.layers import DropPath, Mlp`` works without timm too.

    Detectron2's Swin, MViT and ViT import them when they are built. They are the same layers, with
    the same parameters' names, so weights fit either way.
    """
    try:
        importlib.import_module(_MODULE)
    except ImportError:
        layers = ModuleType(_MODULE)
        layers.DropPath, layers.Mlp = DropPath, Mlp
        sys.modules[_MODULE] = layers
        try:
            yield
        finally:
            del sys.modules[_MODULE]
    else:
        yield
