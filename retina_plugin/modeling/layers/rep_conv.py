"""Parallel convolutions in training that are one convolution at inference."""

from __future__ import annotations

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d, get_norm
from fvcore.nn import weight_init
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from retina_plugin.modeling.abilities import Reparameterizable
from retina_plugin.modeling.layers.norm_folding import folded_weights, scale_and_shift


class RepConv2d(Reparameterizable):
    """``relu(norm(conv3x3(x)) + norm(conv1x1(x)) + norm(x))``, the norms being three.

    The last branch is there where it fits: as many channels out as in, stride 1. With fixed
    statistics the sum is linear in x, and :meth:`for_inference` gives the one 3x3 convolution that
    computes it: ``w = s_3 w_3 + s_1 pad(w_1) + s_0 identity``, ``b = t_3 + t_1 + t_0``, a norm
    being ``s x + t``.

    Source: Ding et al., RepVGG, 2021, section 3.

    Args:
        in_channels, out_channels: C and C'.
        stride: of the 3x3 and the 1x1 convolution.
        norm: of every branch: ``BN``, ``SyncBN`` or ``FrozenBN``.
        key: where the norm is set, for errors.

    Raises:
        ValueError: another norm, or none.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        norm: str = "BN",
        key: str = "norm",
    ) -> None:
        super().__init__()
        norms = [get_norm(norm, out_channels) for _ in range(3)]
        if not isinstance(norms[0], (_BatchNorm, FrozenBatchNorm2d)):
            raise ValueError(
                f"{key} must be BN, SyncBN or FrozenBN, got '{norm}': branches become one "
                "convolution only with norms whose statistics are fixed at inference"
            )
        shared = {"stride": stride, "bias": False}
        self.conv3x3 = Conv2d(in_channels, out_channels, 3, padding=1, norm=norms[0], **shared)
        self.conv1x1 = Conv2d(in_channels, out_channels, 1, norm=norms[1], **shared)
        self.identity = norms[2] if (in_channels, stride) == (out_channels, 1) else None
        for conv in (self.conv3x3, self.conv1x1):
            weight_init.c2_msra_fill(conv)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W) -> (N, C', H / stride, W / stride)``, rounded up."""
        total = self.conv3x3(x) + self.conv1x1(x)
        if self.identity is not None:
            total = total + self.identity(x)
        return F.relu(total)

    @torch.no_grad()
    def for_inference(self) -> Conv2d:
        """See :class:`retina_plugin.modeling.abilities.Reparameterizable`."""
        conv = self.conv3x3
        scale, bias = folded_weights(conv, conv.norm)
        weight = conv.weight * scale
        scale, shift = folded_weights(self.conv1x1, self.conv1x1.norm)
        weight += F.pad(self.conv1x1.weight * scale, (1, 1, 1, 1))
        bias = bias + shift
        if self.identity is not None:
            scale, shift = scale_and_shift(self.identity)
            weight += nn.init.dirac_(torch.empty_like(weight)) * scale.view(-1, 1, 1, 1)
            bias = bias + shift
        merged = Conv2d(
            conv.in_channels, conv.out_channels, 3, conv.stride, padding=1, activation=F.relu
        )
        merged.weight, merged.bias = nn.Parameter(weight), nn.Parameter(bias)
        return merged
