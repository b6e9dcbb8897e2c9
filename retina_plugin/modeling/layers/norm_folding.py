"""A norm with fixed statistics is a factor and a shift of each channel."""

from __future__ import annotations

from torch import Tensor, nn


def scale_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """A norm with fixed statistics as ``s x + t``: ``s`` and ``t``, a number a channel each."""
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = norm.weight * scale
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else norm.bias + shift


def folded_weights(conv: nn.Conv2d, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """The factor of the convolution's weight, ``(C', 1, 1, 1)``, and the new bias, ``(C',)``."""
    scale, shift = scale_and_shift(norm)
    if conv.bias is not None:
        shift = shift + scale * conv.bias
    return scale.view(-1, 1, 1, 1), shift
