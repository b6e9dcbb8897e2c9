"""The order of a cell's anchors, which is that of a head's output channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def ratios_first(num_ratios: int, num_sizes: int) -> list[int]:
    """Where each of our anchors stands in a framework that goes through the ratios first.

    torchvision and MMDetection have all sizes of the first aspect ratio, then all of the next;
    Detectron2 has all ratios of the first size, then all of the next.
    """
    return [r * num_sizes + s for s in range(num_sizes) for r in range(num_ratios)]


def inverse(order: Sequence[int]) -> list[int]:
    """The order that undoes ``order``."""
    return torch.as_tensor(order).argsort().tolist()


def reorder(tensor: Tensor, order: Sequence[int]) -> Tensor:
    """``(A*D, ...)`` with anchor ``order[i]`` in place i, for the weight or bias of an output."""
    by_anchor = tensor.reshape(len(order), -1, *tensor.shape[1:])
    return by_anchor[list(order)].reshape(tensor.shape)
