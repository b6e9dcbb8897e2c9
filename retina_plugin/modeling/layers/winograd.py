"""3x3 convolutions on the CPU with a quarter of the multiplications."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from detectron2.layers import Conv2d
from torch import Tensor, nn
from torch.nn import functional as F

_SIDE, _KERNEL, _TILE = 4, 3, 6  # outputs a side that one tile of inputs gives
# Where the polynomials are evaluated, beside infinity. Lavin's (0, 1, -1, 2, -2) double the error.
_POINTS = (0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)
_CHUNK = 128  # tiles at a time: what they expand to stays in the cache
_LEAST_CHANNELS, _LEAST_CELLS = 128, 1024  # below, transforming costs what multiplying saves


def use_winograd(module: nn.Module) -> int:
    """Compute 3x3 convolutions of stride 1 by Winograd's minimal filtering on the CPU, in place.

    A tile of 4x4 outputs takes 36 instead of 144 multiplications for each pair of channels; the
    relative error is 9e-7 for 256 channels, the direct sum's 2e-7 to 6e-7 by the processor. Other
    devices (cuDNN chooses by itself) and precisions, small maps and few channels: as before. All
    parameters and names stay, some modules only get another class.

    Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016, sections 3, 4.

    Returns:
        How many convolutions can use it.
    """
    convs = [conv for conv in module.modules() if _fits(conv)]
    for conv in convs:
        # what Detectron2's Conv2d has and torch's has not
        conv.norm, conv.activation = getattr(conv, "norm", None), getattr(conv, "activation", None)
        conv.__class__ = WinogradConv2d
    return len(convs)


def use_winograd_behind(backbone: nn.Module, head: nn.Module) -> None:
    """:func:`use_winograd` for the head and what a backbone has behind its ``bottom_up``.

    Not for ``bottom_up``: between its other convolutions the maps would change their memory format
    again and again.
    """
    use_winograd(head)
    if hasattr(backbone, "bottom_up"):
        for name, child in backbone.named_children():
            if name != "bottom_up":
                use_winograd(child)


def _fits(conv: nn.Module) -> bool:
    return (
        type(conv) in (nn.Conv2d, Conv2d)
        and conv.kernel_size == (3, 3)
        and conv.stride == conv.padding == conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
        and min(conv.in_channels, conv.out_channels) >= _LEAST_CHANNELS
    )


class WinogradConv2d(Conv2d):
    """Detectron2's ``Conv2d``, see :func:`use_winograd`."""

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W) -> (N, C', H, W)``, channels-last."""
        if not _pays(x, self.weight):
            return super().forward(x)
        x = winograd_conv2d(x, self.weight, self.bias)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.activation is None else self.activation(x)


def _pays(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.shape[0] * x.shape[2] * x.shape[3] >= _LEAST_CELLS
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()  # those want the convolution, not how it is computed
        and not torch.compiler.is_compiling()
    )


def winograd_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``conv2d(x, weight, bias, padding=1)`` for ``(N, C, H, W)`` and ``(C', C, 3, 3)``."""
    return _Winograd.apply(x, weight, bias)


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        maps = _convolve(x, weight)
        return maps if bias is None else maps.add_(bias.view(-1, 1, 1))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        if torch.is_grad_enabled():  # someone differentiates twice
            return _differentiable_backward(grad, x, weight, ctx.needs_input_grad)
        return (
            _convolve(grad, weight.flip(2, 3).transpose(0, 1)) if needs_x else None,
            _grad_weight(x, grad) if needs_weight else None,
            grad.sum((0, 2, 3)) if needs_bias else None,
        )


def _differentiable_backward(
    grad: Tensor, x: Tensor, weight: Tensor, needs: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    return torch.ops.aten.convolution_backward(
        grad, x, weight, [len(weight)], (1, 1), (1, 1), (1, 1), False, (0, 0), 1, needs
    )


def _convolve(x: Tensor, weight: Tensor) -> Tensor:
    """``conv2d(x, weight, padding=1)``."""
    to_output, to_weight, to_input = _matrices(x.dtype)
    (images, channels, height, width), filters = x.shape, len(weight)
    factors = to_weight @ weight.permute(2, 3, 1, 0).reshape(_KERNEL**2, -1)
    factors = factors.view(_TILE**2, channels, filters)
    maps = x.new_empty(images, height, width, filters)
    for image, rows in _parts(images, height, width):
        tiles = to_input @ _tiles(x[image], rows, _TILE)
        products = torch.bmm(tiles.view(_TILE**2, -1, channels), factors)
        outputs = (to_output @ products.view(_TILE**2, -1)).view(
            _SIDE, _SIDE, len(rows), -1, filters
        )
        outputs = outputs.permute(2, 0, 3, 1, 4).reshape(len(rows) * _SIDE, -1, filters)
        top = rows.start * _SIDE
        maps[image, top : top + len(outputs)] = outputs[: height - top, :width]
    return maps.permute(0, 3, 1, 2)


def _grad_weight(x: Tensor, grad: Tensor) -> Tensor:
    """``(C', C, 3, 3)``: the sum over all tiles, still transformed, then back once."""
    to_output, to_weight, to_input = _matrices(x.dtype)
    (images, channels, height, width), filters = x.shape, grad.shape[1]
    factors = x.new_zeros(_TILE**2, channels, filters)
    for image, rows in _parts(images, height, width):
        inputs = to_input @ _tiles(x[image], rows, _TILE)
        outputs = to_output.T @ _tiles(grad[image], rows, _SIDE)
        inputs = inputs.view(_TILE**2, -1, channels).transpose(1, 2)
        factors.baddbmm_(inputs, outputs.view(_TILE**2, -1, filters))
    grad_weight = to_weight.T @ factors.view(_TILE**2, -1)
    grad_weight = grad_weight.view(_KERNEL, _KERNEL, channels, filters)
    return grad_weight.permute(3, 2, 0, 1).contiguous()


@cache
def _matrices(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """What transforms tiles of outputs ``(16, 36)``, weights ``(36, 9)`` and inputs ``(36, 36)``.

    Filtering is the transpose of multiplying polynomials at points (Toom-Cook).
    """
    points = torch.tensor(_POINTS, dtype=torch.float64)

    def powers(count: int) -> Tensor:
        table = torch.zeros(_TILE, count, dtype=torch.float64)
        table[:-1] = points[:, None] ** torch.arange(count)
        table[-1, -1] = 1  # infinity: the leading coefficient
        return table

    outputs, weights = powers(_SIDE).T, powers(_KERNEL)
    inputs = torch.linalg.inv(powers(_TILE)).T
    scale = 2 ** inputs.abs().amax(1, keepdim=True).log2().round()  # powers of 2 round nothing
    pairs = outputs, weights * scale, inputs / scale
    return tuple(torch.kron(m, m).to(dtype).contiguous() for m in pairs)


def _parts(images: int, height: int, width: int) -> Iterator[tuple[int, range]]:
    """Image and rows of tiles that are worked on at a time."""
    rows, columns = -(-height // _SIDE), -(-width // _SIDE)
    step = max(1, _CHUNK // columns)
    for image in range(images):
        for start in range(0, rows, step):
            yield image, range(start, min(start + step, rows))


def _tiles(maps: Tensor, rows: range, side: int) -> Tensor:
    """Tiles of a map ``(C, H, W)`` around every 4x4 cells of these rows: ``(side^2, tiles * C)``.

    What lies outside is 0.
    """
    (channels, height, width), border = maps.shape, (side - _SIDE) // 2
    columns = -(-width // _SIDE)
    top, bottom = rows.start * _SIDE - border, rows.stop * _SIDE + border
    strip = maps[:, max(top, 0) : bottom].permute(1, 2, 0)
    right = columns * _SIDE + border - width
    above, below = max(-top, 0), max(bottom - height, 0)
    strip = F.pad(strip, (0, 0, border, right, above, below)).contiguous()
    row, column, channel = strip.stride()
    tiles = strip.as_strided(
        (side, side, len(rows), columns, channels),
        (row, column, _SIDE * row, _SIDE * column, channel),
    )
    return tiles.reshape(side**2, -1)
