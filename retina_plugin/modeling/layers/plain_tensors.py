"""Tensors that an algorithm of our own may read and write directly."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad


def is_plain(tensor: Tensor) -> bool:
    """Whether it is an ordinary tensor in memory, neither fake, batched nor a dual number."""
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and has_memory(tensor)
        and forward_ad.unpack_dual(tensor).tangent is None
    )


def has_memory(tensor: Tensor) -> bool:
    """Whether it has a storage, which the wrappers of ``torch.func`` and ``vmap`` have not."""
    try:
        tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return False
    return True


def is_recorded() -> bool:
    """Whether operations go into a graph of ``torch.jit.trace``, ``compile`` or ``export``."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()
