"""A first convolution for N channels of one that was trained on three."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

COLOURS = 3


def can_inflate(given: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether a weight of shape ``given`` is that of RGB images, and ``wanted`` of others."""
    return (
        len(given) == len(wanted) == 4
        and given[1] == COLOURS != wanted[1]
        and (given[0], *given[2:]) == (wanted[0], *wanted[2:])
    )


def inflate(weight: Tensor, channels: int) -> Tensor:
    """``(C, 3, k, k) -> (C, N, k, k)``: what RGB weights become for images of N channels.

    Channel i gets the weight of colour ``i mod 3``, times ``3 / N``; a single channel gets the sum
    of the three. So an image that repeats its colours (N a multiple of 3) and a grey one (N = 1)
    give the response that the RGB image gives; with another N the response to repeated colours is
    of about its size. Colours are in the file's order: of weights trained on BGR images channel 0
    gets that of blue.

    Source: the rule of ``timm.models._manipulate.adapt_input_conv``.

    Args:
        weight: of the first convolution.
        channels: N.
    """
    assert weight.shape[1] == COLOURS
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    repeated = weight.repeat(1, math.ceil(channels / COLOURS), 1, 1)[:, :channels]
    return repeated * (COLOURS / channels)


def inflation_note(name: str, channels: int) -> str:
    """What :func:`inflate` did, for the log."""
    how = (
        "the sum over the three colours"
        if channels == 1
        else f"the three colours in turn, times 3/{channels}, in the file's order of colours"
    )
    return f"{name} of 3 channels inflated to {channels}: {how}"
