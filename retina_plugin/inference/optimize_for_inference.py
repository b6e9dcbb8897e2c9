"""A copy of a detector that finds the same boxes sooner, and learns no more."""

from __future__ import annotations

import copy
import shutil
from collections import Counter
from itertools import pairwise

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import Tensor, nn

from retina_plugin.modeling.abilities import Reparameterizable, warn_of_undeclared
from retina_plugin.modeling.data_parallel import inner_model
from retina_plugin.modeling.layers.checkpointing import without_checkpointing
from retina_plugin.modeling.layers.folded_conv import FoldedConv2d, FoldedSequential, is_plain_conv
from retina_plugin.modeling.layers.norm_folding import folded_weights
from retina_plugin.modeling.layers.swapping import swap_modules, with_state_of
from retina_plugin.modeling.layers.winograd import WinogradConv2d, use_winograd

_FIXED_IN_EVALUATION = (FrozenBatchNorm2d, nn.BatchNorm2d, nn.SyncBatchNorm)
_SEQUENTIALS = (nn.Sequential, FoldedSequential)


def optimize_for_inference(
    model: nn.Module, *, channels_last: bool = True, winograd: bool = False, compile: bool = False
) -> nn.Module:
    """A copy in evaluation mode, re-parameterised, with its norms folded into its convolutions.

    Each :class:`~retina_plugin.modeling.abilities.Reparameterizable` is replaced by what its
    ``for_inference`` returns. Frozen norms and batch norms become
    part of the weights of the convolutions before them; what depends on its input (GroupNorm,
    LayerNorm, the per-level BatchNorm of Detectron2's head) stays. Equal but for rounding.

    Example:
        >>> import retina_plugin
        >>> from detectron2.modeling import build_model
        >>> settings = ["MODEL.RETINANET.NUM_CLASSES=2", "MODEL.DEVICE=cpu"]
        >>> model = build_model(retina_plugin.get_config("retinanet_R_50_FPN_1x", settings))
        >>> fast = optimize_for_inference(model)
        >>> fast.training, fast.backbone.bottom_up.stem.conv1.norm
        (False, None)

    Args:
        model: is not changed. Detectron2's own RetinaNet will do as well; of a
            ``DistributedDataParallel`` the model inside is copied.
        channels_last: keep weights and activations channel by channel.
        winograd: multiply less in 3x3 convolutions on the CPU, see :func:`use_winograd`.
        compile: ``torch.compile`` the backbone and the head. The first image of every new size may
            then take minutes.

    Raises:
        ValueError: ``compile`` on a CPU without a C++ compiler.
    """
    model = without_checkpointing(copy.deepcopy(inner_model(model)))
    model = _re_parameterised(model.eval()).requires_grad_(False)
    uses = Counter(m for _, m in model.named_modules(remove_duplicate=False))
    for module in list(model.modules()):
        if type(module) in (Conv2d, FoldedConv2d, WinogradConv2d) and _can_absorb(
            module, module.norm
        ):
            _absorb(module, module.norm)
            module.norm = None
        elif getattr(type(module), "forward", None) in [s.forward for s in _SEQUENTIALS]:
            for (_, conv), (name, norm) in pairwise(list(module.named_children())):
                # a convolution that others share has other norms there
                if is_plain_conv(conv) and uses[conv] == 1 and _can_absorb(conv, norm):
                    _absorb(conv, norm)
                    setattr(module, name, nn.Identity())
    model, _ = swap_modules(model, _unfolded)
    if winograd:
        use_winograd(model)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        getattr(model, "backbone", model).register_forward_pre_hook(_to_channels_last)
    if compile:
        _compile(model)
    return model


def _re_parameterised(model: nn.Module) -> nn.Module:
    """The model with its modules in their form for inference, wherever they are referred to."""
    forms: dict[int, nn.Module] = {}
    decided: set[nn.Module] = set()
    for module in list(model.modules()):  # from the outside in
        if not isinstance(module, Reparameterizable):
            warn_of_undeclared(module, Reparameterizable)
        elif module not in decided:
            decided.update(module.modules())
            forms[id(module)] = module.for_inference()
    # what is in its memo deepcopy replaces, also in a plain list, as Detectron2's FPN has them
    return copy.deepcopy(model, forms) if forms else model


def _can_absorb(conv: nn.Module, norm: nn.Module | None) -> bool:
    """Whether the norm is fixed and the weight a parameter, which pruning makes it no longer."""
    return _is_fixed(norm) and "weight" in dict(conv.named_parameters(recurse=False))


def _unfolded(conv: nn.Module) -> Conv2d | None:
    is_done = type(conv) is FoldedConv2d and conv.norm is None
    return with_state_of(conv, Conv2d) if is_done else None


def _is_fixed(norm: nn.Module | None) -> bool:
    """Whether it is ``s x + t`` of a channel, whatever the other values are."""
    return type(norm) in _FIXED_IN_EVALUATION and norm.running_mean is not None


def _absorb(conv: nn.Conv2d, norm: nn.Module) -> None:
    """Make the norm after it part of a convolution's weight and bias."""
    scale, shift = folded_weights(conv, norm)
    conv.weight = nn.Parameter(conv.weight * scale, requires_grad=False)
    conv.bias = nn.Parameter(shift, requires_grad=False)


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
