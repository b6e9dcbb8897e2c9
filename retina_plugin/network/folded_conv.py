"""A convolution and the frozen norm after it, trained as one convolution."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from retina_plugin.network.conv_norm_pairs import conv_norm_pairs


def fold_frozen_norms(module: nn.Module) -> int:
    """Compute every convolution with a ``FrozenBatchNorm2d`` after it as one convolution, in place.

    ``norm(conv(x, w, b)) = conv(x, s w, s b + t)``, the norm being ``s x + t``. Parameters, buffers
    and their names stay: weights and checkpoints fit as before.

    Returns:
        How many there are.
    """
    pairs = list(conv_norm_pairs(module, (FrozenBatchNorm2d,)))
    for pair in pairs:
        if pair.norm_name is None:
            folded = FoldedConv2d(conv=pair.conv)
        else:
            absorbed = AbsorbedNorm(norm=pair.norm)
            folded = FoldedConv2d(conv=pair.conv, absorbed=absorbed)
            setattr(pair.parent, pair.norm_name, absorbed)
        setattr(pair.parent, pair.conv_name, folded.train(pair.conv.training))
    return len(pairs)


def scale_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """A norm with frozen statistics as ``s x + t``: ``s`` and ``t``, a number a channel each."""
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = norm.weight * scale
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else norm.bias + shift


class FoldedConv2d(Conv2d):
    """Detectron2's ``Conv2d`` whose frozen norm is part of the convolution, in training as well.

    Gradients are those of convolution and norm apart; only first ones can be taken. Where the norm
    has been replaced by one that is not frozen, it computes what Detectron2's does.

    Args:
        conv: whose weight, bias, norm and activation become this one's.
        absorbed: the norm, where ``conv`` has none of its own.
    """

    def __init__(self, *, conv: nn.Conv2d, absorbed: AbsorbedNorm | None = None) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            conv.padding,
            conv.dilation,
            conv.groups,
            bias=False,
            device="meta",  # the weight is replaced at once
            norm=getattr(conv, "norm", None),
            activation=getattr(conv, "activation", None),
        )
        self.weight, self.bias = conv.weight, conv.bias
        self._absorbed = (absorbed,)  # in a tuple: it is another module's child

    @property
    def frozen_norm(self) -> FrozenBatchNorm2d | None:
        """The norm that is folded in."""
        norm = self.norm if self._absorbed[0] is None else self._absorbed[0]
        return norm if isinstance(norm, FrozenBatchNorm2d) else None

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W) -> (N, C', H', W')``."""
        if self.frozen_norm is None:
            return super().forward(x)
        scale, shift = scale_and_shift(self.frozen_norm)
        if self.bias is not None:
            shift = shift + scale * self.bias
        scale = scale.view(-1, 1, 1, 1)
        geometry = (self.stride, self.padding, self.dilation, self.groups)
        if torch.is_grad_enabled():
            x = _ScaledConvolution.apply(x, self.weight, scale, shift, *geometry)
        else:
            x = F.conv2d(x, self.weight * scale, shift, *geometry)
        return x if self.activation is None else self.activation(x)


class AbsorbedNorm(FrozenBatchNorm2d):
    """The frozen norm of a ``FoldedConv2d`` that stands before it: holds its buffers, does nothing.

    Args:
        norm: whose buffers these are.
    """

    def __init__(self, *, norm: FrozenBatchNorm2d) -> None:
        super().__init__(norm.num_features, norm.eps)
        for name, buffer in norm.named_buffers(recurse=False):
            setattr(self, name, buffer)

    def forward(self, x: Tensor) -> Tensor:
        """``x``."""
        return x


class _ScaledConvolution(torch.autograd.Function):
    """``conv2d(x, scale * weight, shift)`` that does not keep the product for the backward pass.

    Of a ResNet-50 the products would take 100 MB; making them again takes a pass over the weights.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor, *geometry: Any
    ) -> Tensor:
        product = weight * scale
        ctx.dtypes = x.dtype, weight.dtype
        device = x.device.type
        if torch.is_autocast_enabled(device):  # what conv2d would do, but x is kept as it sees it
            dtype = torch.get_autocast_dtype(device)
            x, product, shift = x.to(dtype), product.to(dtype), shift.to(dtype)
        ctx.save_for_backward(x, weight, scale)
        ctx.geometry = geometry
        return F.conv2d(x, product, shift, *geometry)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.geometry
        grad_x, grad_product, grad_shift = torch.ops.aten.convolution_backward(
            grad_output,
            x,
            (weight * scale).to(x.dtype),
            [len(weight)],
            stride,
            padding,
            dilation,
            False,  # not transposed
            [0, 0],
            groups,
            [ctx.needs_input_grad[i] for i in (0, 1, 3)],
        )
        x_dtype, dtype = ctx.dtypes
        return (
            None if grad_x is None else grad_x.to(x_dtype),
            None if grad_product is None else grad_product.to(dtype).mul_(scale),
            None,  # of the frozen scale
            None if grad_shift is None else grad_shift.to(dtype),
            *(None,) * len(ctx.geometry),
        )
