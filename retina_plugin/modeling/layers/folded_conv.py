"""A convolution and the frozen norm after it, trained as one convolution."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import _has_any_global_hook
from torchvision.ops import Conv2dNormActivation

from retina_plugin.modeling.layers.norm_folding import folded_weights
from retina_plugin.modeling.layers.plain_tensors import is_plain, is_recorded
from retina_plugin.modeling.layers.swapping import swap_modules, with_state_of
from retina_plugin.modeling.layers.winograd import WinogradConv2d


def fold_frozen_norms(module: nn.Module) -> tuple[nn.Module, int]:
    """Compute every convolution with a ``FrozenBatchNorm2d`` after it as one convolution, in place.

    ``norm(conv(x, w, b)) = conv(x, s w, s b + t)``, the norm being ``s x + t``. Only where the
    structure proves the pair: the ``norm`` of Detectron2's ``Conv2d``, and neighbours in a
    ``Sequential`` or in torchvision's ``Conv2dNormActivation``; other subclasses of ``Sequential``
    are left alone. A module that computes both takes the place of the ``Conv2d`` or ``Sequential``;
    parameters and names stay. A norm that is replaced later, and a norm or convolution with hooks,
    is applied as it is.

    Returns:
        ``module`` or what takes its place, and the number of modules exchanged.
    """
    return swap_modules(module, _folded_form)


def _folded_form(module: nn.Module) -> nn.Module | None:
    if type(module) is Conv2d and type(module.norm) is FrozenBatchNorm2d:
        return with_state_of(module, FoldedConv2d)
    if type(module) in (nn.Sequential, Conv2dNormActivation) and any(
        is_plain_conv(conv) and type(norm) is FrozenBatchNorm2d for conv, norm in pairwise(module)
    ):
        return with_state_of(module, FoldedSequential)
    return None


def is_plain_conv(module: nn.Module) -> bool:
    """Whether it computes ``F.conv2d`` of its weight and bias, and no more."""
    if type(module) in (Conv2d, WinogradConv2d):
        return module.norm is None and module.activation is None
    return type(module) is nn.Conv2d and module.padding_mode == "zeros"


def _has_hooks(*modules: nn.Module) -> bool:
    """Whether anyone is told of the calls of these modules."""
    return _has_any_global_hook() or any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
        for m in modules
    )


def folded_conv2d(x: Tensor, conv: nn.Conv2d, norm: FrozenBatchNorm2d) -> Tensor:
    """``norm(conv(x))``, ``(N, C, H, W) -> (N, C', H', W')``."""
    scale, shift = folded_weights(conv, norm)
    geometry = (conv.stride, conv.padding, conv.dilation, conv.groups)
    if torch.is_grad_enabled() and not is_recorded() and is_plain(x) and is_plain(conv.weight):
        return _ScaledConvolution.apply(x, conv.weight, scale, shift, *geometry)
    return F.conv2d(x, conv.weight * scale, shift, *geometry)


class FoldedConv2d(Conv2d):
    """Detectron2's ``Conv2d`` whose frozen norm is part of the convolution, in training as well."""

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W) -> (N, C', H', W')``; with a norm that is not frozen as the parent."""
        if type(self.norm) is not FrozenBatchNorm2d or _has_hooks(self.norm):
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
            folded = (
                type(following) is FrozenBatchNorm2d
                and is_plain_conv(child)
                and not _has_hooks(child, following)
            )
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
            None if grad_product is None else grad_product.to(dtype) * scale,
            None,  # of the frozen scale
            None if grad_shift is None else grad_shift.to(dtype),
            *(None,) * len(ctx.geometry),
        )
