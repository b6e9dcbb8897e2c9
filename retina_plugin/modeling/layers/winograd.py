"""3x3 convolutions on the CPU with a quarter of the multiplications."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from detectron2.layers import Conv2d
from torch import Tensor, nn
from torch.nn import functional as F

from retina_plugin.modeling.layers.plain_tensors import has_memory, is_plain, is_recorded
from retina_plugin.modeling.layers.swapping import swap_modules, with_state_of

_SIDE, _KERNEL, _TILE = 4, 3, 6  # outputs per side of a tile, its kernel and its inputs per side
# Where the polynomials are evaluated, beside infinity. Lavin's (0, 1, -1, 2, -2) double the error.
_POINTS = (0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)
_CHUNK = 128  # tiles per pass, so that their transforms fit into the cache
_LEAST_CHANNELS, _LEAST_CELLS = 128, 1024  # below, transforming costs what multiplying saves


def use_winograd(module: nn.Module) -> int:
    """Compute 3x3 convolutions of stride 1 by Winograd's minimal filtering on the CPU, in place.

    A tile of 4x4 outputs takes 36 instead of 144 multiplications per pair of channels. The relative
    error is 9e-7 to 1.2e-6 for 256 channels; that of the direct sum is 2e-7 to 6e-7, depending on
    the processor. All else is the convolution's: memory that the output owns, memory format, the
    state of autocast, derivatives. What cannot be kept is left to the convolution: other devices
    and dtypes, autocast, higher derivatives and forward mode, ``torch.func``, tensor subclasses
    such as fake tensors, a lower ``torch.set_float32_matmul_precision``, tracing and compiling,
    small maps and few channels.

    One deviation: a value that is not finite spreads over its tile, not only over its 3x3 cells.

    Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016, sections 3, 4.

    Returns:
        The number of convolutions that can use it.
    """
    return swap_modules(module, _winograd_form)[1]


def use_winograd_behind(backbone: nn.Module, head: nn.Module) -> None:
    """:func:`use_winograd` for the head and for what a backbone has after its ``bottom_up``.

    Not for ``bottom_up``: between its other convolutions the maps would change their memory format
    again and again.
    """
    bottom_up = getattr(backbone, "bottom_up", backbone)
    left_alone = set(bottom_up.modules())
    for module in (backbone, head):
        swap_modules(module, lambda m: None if m in left_alone else _winograd_form(m))


def _winograd_form(conv: nn.Module) -> WinogradConv2d | None:
    if not _fits(conv):
        return None
    # what Detectron2's Conv2d has and torch's has not
    norm, activation = getattr(conv, "norm", None), getattr(conv, "activation", None)
    conv = with_state_of(conv, WinogradConv2d)
    conv.norm, conv.activation = norm, activation
    return conv


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
        """``(N, C, H, W) -> (N, C', H, W)``, in the memory format of ``Conv2d``."""
        if not _pays(x, self.weight, self.bias):
            return super().forward(x)
        x = winograd_conv2d(x, self.weight, self.bias)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.activation is None else self.activation(x)


def _pays(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    given = (x, weight) if bias is None else (x, weight, bias)
    return (
        not is_recorded()  # a graph is to hold the convolution, not this algorithm
        and all(t.dtype == torch.float32 and t.device.type == "cpu" and is_plain(t) for t in given)
        and x.dim() == 4
        and x.shape[1] == weight.shape[1]  # else the convolution raises its own error
        and x.shape[0] * x.shape[2] * x.shape[3] >= _LEAST_CELLS
        and not torch.is_autocast_enabled("cpu")
        and _products_are_exact()
    )


def _products_are_exact() -> bool:
    """Whether matrix products of fp32 on the CPU are computed in fp32, as convolutions are."""
    matmul = getattr(torch.backends.mkldnn, "matmul", None)  # torch 2.9 and later
    if matmul is None:
        return torch.get_float32_matmul_precision() == "highest"
    return matmul.fp32_precision in ("none", "ieee")


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
        # differentiated twice, or of a batch of gradients; or the precision has been changed since
        if torch.is_grad_enabled() or not has_memory(grad) or not _products_are_exact():
            return _convolution_backward(grad, x, weight, ctx.needs_input_grad)
        with torch.autocast("cpu", enabled=False):  # the caller of backward() may have entered it
            return (
                _convolve(grad, weight.flip(2, 3).transpose(0, 1)) if needs_x else None,
                _grad_weight(x, grad) if needs_weight else None,
                grad.sum((0, 2, 3)) if needs_bias else None,
            )


def _convolution_backward(
    grad: Tensor, x: Tensor, weight: Tensor, needs: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    return torch.ops.aten.convolution_backward(
        grad, x, weight, [len(weight)], (1, 1), (1, 1), (1, 1), False, (0, 0), 1, needs
    )


def _convolve(x: Tensor, weight: Tensor) -> Tensor:
    """``conv2d(x, weight, padding=1)``, in the memory format that ``conv2d`` chooses."""
    to_output, to_weight, to_input = _MATRICES[x.dtype]
    (images, channels, height, width), filters = x.shape, len(weight)
    factors = to_weight @ weight.permute(2, 3, 1, 0).reshape(_KERNEL**2, -1)
    factors = factors.view(_TILE**2, channels, filters)
    last = _is_channels_last(x) or _is_channels_last(weight)
    memory_format = torch.channels_last if last else torch.contiguous_format
    maps = torch.empty(
        (images, filters, height, width), dtype=x.dtype, device="cpu", memory_format=memory_format
    )
    for image, rows in _parts(images, height, width):
        tiles = to_input @ _tiles(x[image], rows, _TILE)
        products = torch.bmm(tiles.view(_TILE**2, -1, channels), factors)
        outputs = (to_output @ products.view(_TILE**2, -1)).view(
            _SIDE, _SIDE, len(rows), -1, filters
        )
        top = rows.start * _SIDE
        if last:
            outputs = outputs.permute(2, 0, 3, 1, 4).reshape(len(rows) * _SIDE, -1, filters)
            outputs = outputs[: height - top, :width].permute(2, 0, 1)
        else:
            outputs = outputs.permute(4, 2, 0, 3, 1).reshape(filters, len(rows) * _SIDE, -1)
            outputs = outputs[:, : height - top, :width]
        maps[image, :, top : top + outputs.shape[1]] = outputs
    return maps


def _is_channels_last(tensor: Tensor) -> bool:
    """Whether its strides are, dense or not, in the order of ``torch.channels_last``."""
    images, channels, height, width = tensor.stride()
    return channels == 1 and tensor.shape[1] <= width <= height <= images


def _grad_weight(x: Tensor, grad: Tensor) -> Tensor:
    """``(C', C, 3, 3)``: the sum over all tiles, transformed back once."""
    to_output, to_weight, to_input = _MATRICES[x.dtype]
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


def _matrices(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """What transforms tiles of outputs ``(16, 36)``, weights ``(36, 9)`` and inputs ``(36, 36)``.

    Filtering is the transpose of multiplying polynomials at points (Toom-Cook).
    """
    exact = {"dtype": torch.float64, "device": "cpu"}
    points = torch.tensor(_POINTS, **exact)

    def powers(count: int) -> Tensor:
        table = torch.zeros(_TILE, count, **exact)
        table[:-1] = points[:, None] ** torch.arange(count, device="cpu")
        table[-1, -1] = 1  # infinity: the leading coefficient
        return table

    outputs, weights = powers(_SIDE).T, powers(_KERNEL)
    inputs = torch.linalg.inv(powers(_TILE)).T
    scale = 2 ** inputs.abs().amax(1, keepdim=True).log2().round()  # powers of 2 round nothing
    pairs = outputs, weights * scale, inputs / scale
    return tuple(torch.kron(m, m).to(dtype).contiguous() for m in pairs)


# made at import: whatever mode or default device the first call runs under would stay in a cache
_MATRICES = {dtype: _matrices(dtype) for dtype in (torch.float32, torch.float64)}


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
