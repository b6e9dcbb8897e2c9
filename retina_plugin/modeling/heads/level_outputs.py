"""A head's last layers, where levels may have different numbers of anchors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import nn


def anchor_counts(num_anchors: int | Sequence[int], num_levels: int) -> tuple[int, ...]:
    """A of each level.

    Raises:
        ValueError: ``num_anchors`` does not fit the levels.
    """
    counts = [num_anchors] * num_levels if isinstance(num_anchors, int) else list(num_anchors)
    if len(counts) != num_levels:
        raise ValueError(f"num_anchors has {len(counts)} entries for {num_levels} levels: {counts}")
    return tuple(counts)


def output_layers(counts: Sequence[int], make: Callable[[int], nn.Module]) -> nn.Module:
    """``make(A)`` for all levels; a ``ModuleDict`` keyed by A where levels differ."""
    if len(set(counts)) == 1:
        return make(counts[0])
    return nn.ModuleDict({str(count): make(count) for count in dict.fromkeys(counts)})


def layer_of(layers: nn.Module, count: int) -> nn.Module:
    """Of :func:`output_layers`, the one for a level of so many anchors."""
    return layers[str(count)] if isinstance(layers, nn.ModuleDict) else layers


def output_conv(in_channels: int, out_channels: int, bias: float) -> nn.Conv2d:
    """A 3x3 convolution that starts near its bias."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.constant_(conv.bias, bias)
    return conv


def prior_bias(prior_prob: float) -> float:
    """The logit of pi, the score that all anchors start with (Lin et al. 2017, section 4.1)."""
    return -math.log((1 - prior_prob) / prior_prob)
