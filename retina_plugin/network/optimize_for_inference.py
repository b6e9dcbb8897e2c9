"""A copy of a detector that finds the same boxes sooner, and learns no more."""

from __future__ import annotations

import copy
import shutil

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import Tensor, nn

from retina_plugin.network.conv_norm_pairs import conv_norm_pairs
from retina_plugin.network.folded_conv import AbsorbedNorm, FoldedConv2d, scale_and_shift

_FIXED_IN_EVAL = (FrozenBatchNorm2d, nn.BatchNorm2d, nn.SyncBatchNorm)


def optimize_for_inference(
    model: nn.Module, *, channels_last: bool = True, compile: bool = False
) -> nn.Module:
    """A copy in evaluation mode with its norms folded into its convolutions.

    Frozen norms and batch norms become part of the weights of the convolutions before them; what
    depends on its input (GroupNorm, LayerNorm, the per-level BatchNorm of Detectron2's head) stays.
    Equal but for rounding: boxes differ by less than 1e-3 pixels.

    Args:
        model: is not changed. Detectron2's own RetinaNet will do as well.
        channels_last: keep weights and activations channel by channel.
        compile: ``torch.compile`` the backbone and the head. The first image of every new size then
            takes minutes.

    Raises:
        ValueError: ``compile`` on a CPU without a C++ compiler.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    for parent, name, folded in _folded_convs(model):
        setattr(parent, name, folded)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, AbsorbedNorm):
                setattr(parent, name, nn.Identity())
    for pair in list(conv_norm_pairs(model, _FIXED_IN_EVAL)):
        setattr(pair.parent, pair.conv_name, _fused(pair.conv, pair.norm))
        if pair.norm_name is not None:
            setattr(pair.parent, pair.norm_name, nn.Identity())
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        model.backbone.register_forward_pre_hook(_to_channels_last)
    if compile:
        _compile(model)
    return model


def _folded_convs(model: nn.Module) -> list[tuple[nn.Module, str, Conv2d]]:
    """The model's ``FoldedConv2d`` s, by parent and name, as plain convolutions."""
    return [
        (parent, name, _fused(child, child.frozen_norm))
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, FoldedConv2d) and child.frozen_norm is not None
    ]


def _fused(conv: nn.Conv2d, norm: nn.Module) -> Conv2d:
    """One convolution without a norm, which keeps ``conv``'s activation."""
    fused = Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
        conv.groups,
        device="meta",
        activation=getattr(conv, "activation", None),
    )
    scale, shift = scale_and_shift(norm)
    if conv.bias is not None:
        shift = shift + scale * conv.bias
    fused.weight = nn.Parameter(conv.weight * scale.view(-1, 1, 1, 1), requires_grad=False)
    fused.bias = nn.Parameter(shift, requires_grad=False)
    return fused.eval()


def _to_channels_last(_: nn.Module, images: tuple[Tensor]) -> tuple[Tensor]:
    return (images[0].contiguous(memory_format=torch.channels_last),)


def _compile(model: nn.Module) -> None:
    on_cpu = next(model.parameters()).device.type == "cpu"
    if on_cpu and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise ValueError(
            "torch.compile needs a C++ compiler on the CPU, and there is none: install g++, or set "
            "TEST.COMPILE False"
        )
    model.backbone.compile(dynamic=True)
    model.head.compile(dynamic=True)
