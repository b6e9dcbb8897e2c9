"""What several workers wrap around a model, and the model in it."""

from __future__ import annotations

from torch import nn
from torch.nn.parallel import DistributedDataParallel


def inner_model(model: nn.Module) -> nn.Module:
    """The model that ``DistributedDataParallel`` wraps; any other model is what it is."""
    return model.module if isinstance(model, DistributedDataParallel) else model
