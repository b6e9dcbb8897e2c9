"""A convolution and the frozen norm after it, trained as one convolution."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from retina_plugin.modeling.layers.norm_folding import folded_weights
from retina_plugin.modeling.layers.winograd import WinogradConv2d


def fold_frozen_norms(module: nn.Module) -> int:
    """Compute every convolution with a ``FrozenBatchNorm2d`` after it as one convolution, in place.

    ``norm(conv(x, w, b)) = conv(x, s w, s b + t)``, the norm being ``s x + t``. Only where the
    structure proves the pair: the ``norm`` of Detectron2's ``Conv2d``, neighbours in a
    ``Sequential``. All modules, parameters and names stay, and a norm that somebody replaces later
    is applied as it is: some modules only get another class.

    Returns:
        How many modules got one.
    """
    count = 0
    for child in module.modules():
        if type(child) is Conv2d and type(child.norm) is FrozenBatchNorm2d:
            child.__class__ = FoldedConv2d
        elif getattr(type(child), "forward", None) is nn.Sequential.forward and any(
            is_plain_conv(conv) and type(norm) is FrozenBatchNorm2d
            for conv, norm in pairwise(child)
        ):
            child.__class__ = FoldedSequential
        else:
            continue
        count += 1
    return count


def is_plain_conv(module: nn.Module) -> bool:
    """Whether it computes ``F.conv2d`` of its weight and bias, and no more."""
    if type(module) in (Conv2d, WinogradConv2d):
        return module.norm is None and module.activation is None
    return type(module) is nn.Conv2d and module.padding_mode == "zeros"


def folded_conv2d(x: Tensor, conv: nn.Conv2d, norm: FrozenBatchNorm2d) -> Tensor:
    """``norm(conv(x))``, ``(N, C, H, W) -> (N, C', H', W')``; first derivatives only."""
    scale, shift = folded_weights(conv, norm)
    geometry = (conv.stride, conv.padding, conv.dilation, conv.groups)
    if torch.is_grad_enabled():
        return _ScaledConvolution.apply(x, conv.weight, scale, shift, *geometry)
    return F.conv2d(x, conv.weight * scale, shift, *geometry)


class FoldedConv2d(Conv2d):
    """Detectron2's ``Conv2d`` whose frozen norm is part of the convolution, in training as well."""

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W) -> (N, C', H', W')``; with a norm that is not frozen as the parent."""
        if type(self.norm) is not FrozenBatchNorm2d:
            return super().forward(x)
        x = folded_conv2d(x, self, self.norm)
        return x if self.activation is None else self.activation(x)


class FoldedSequential(nn.Sequential):
    """A ``Sequential`` that computes a convolution and a frozen norm next to it as one."""

    def forward(self, x: Tensor) -> Tensor:
        """Of the children in turn."""
        children = [*self, None]
        folded = False
        for child, following in pairwise(children):
            if folded:  # it was part of the convolution before
                folded = False
                continue
            folded = is_plain_conv(child) and type(following) is FrozenBatchNorm2d
            x = folded_conv2d(x, child, following) if folded else child(x)
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
