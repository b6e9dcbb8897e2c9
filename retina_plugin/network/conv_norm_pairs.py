"""Where a network applies a norm to nothing but a convolution's output."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from detectron2.layers import Conv2d
from torch import nn


class ConvNormPair(NamedTuple):
    """A convolution and the norm after it.

    Attributes:
        parent: the module whose child the convolution is.
        conv_name: the child's name.
        conv: the convolution.
        norm_name: the norm's name in ``parent``; None where it is the convolution's own ``norm``.
        norm: the norm.
    """

    parent: nn.Module
    conv_name: str
    conv: nn.Conv2d
    norm_name: str | None
    norm: nn.Module


def conv_norm_pairs(module: nn.Module, norms: tuple[type, ...]) -> Iterator[ConvNormPair]:
    """All pairs that the structure proves: Detectron2's ``Conv2d.norm``, neighbours in Sequentials.

    Args:
        module: is not changed; change it only when the iteration is over.
        norms: types of the norms; subclasses, which may compute something else, do not count.
    """
    for parent in module.modules():
        children = list(parent.named_children())
        for name, child in children:
            if type(child) is Conv2d and type(child.norm) in norms:
                yield ConvNormPair(parent, name, child, None, child.norm)
        if getattr(type(parent), "forward", None) is not nn.Sequential.forward:
            continue
        for (name, conv), (norm_name, norm) in pairwise(children):
            if _is_plain(conv) and type(norm) in norms:
                yield ConvNormPair(parent, name, conv, norm_name, norm)


def _is_plain(conv: nn.Module) -> bool:
    """Whether it computes ``F.conv2d`` of its weight and bias, and no more."""
    if type(conv) is Conv2d:
        return conv.norm is None and conv.activation is None
    return type(conv) is nn.Conv2d and conv.padding_mode == "zeros"
