"""Layer-wise learning rate decay of the pretrained network, from last to first layer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from detectron2.layers import FrozenBatchNorm2d
from detectron2.layers.batch_norm import CycleBatchNormList, LayerNorm
from detectron2.modeling.backbone.vit import ViT, get_vit_lr_decay_rate
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from retina_plugin.modeling.backbones.pretrained_network import PretrainedNetwork
from retina_plugin.modeling.pretrained_part import pretrained_part_of_detector

KEY = "SOLVER.LAYER_DECAY"
# Detectron2's own norms, which its get_default_optimizer_params does not treat as norms
OWN_NORMS = (LayerNorm, CycleBatchNormList)
_NORMS = (_NormBase, FrozenBatchNorm2d, nn.GroupNorm, nn.LayerNorm, *OWN_NORMS)

logger = logging.getLogger(__name__)


def layer_decay(model: nn.Module, decay: float) -> Callable[[str], float]:
    """Return a function from parameter names to learning rate factors ``decay^(L - l)``.

    l is the index of the parameter's layer among the L pretrained layers, counted from the input: 0
    to L - 1. All others (neck, head) get factor 1. Layers (:func:`layers_of`) are stem and stages
    of a ResNet or RegNet, patch embedding and stages of a Swin, patch embedding and blocks of an
    MViT, the 18 blocks of a MobileNetV2. A ViT gets the factors of
    ``detectron2.modeling.get_vit_lr_decay_rate``, which are the same rule.

    Raises:
        ValueError: if ``decay`` is out of range, or there is no backbone or one whose structure
            does not determine the order of its layers.
    """
    if not 0 < decay <= 1:
        raise ValueError(f"{KEY} must be above 0 and at most 1 (off), got {decay}")
    if decay == 1:
        return lambda name: 1.0
    prefix, network = pretrained_part_of_detector(model)
    if network is None:
        raise ValueError(
            f"{KEY} is {decay}, but {type(model).__name__} has no backbone: set it to 1"
        )
    if isinstance(network, ViT):
        return partial(get_vit_lr_decay_rate, lr_decay_rate=decay, num_layers=len(network.blocks))
    layers = layers_of(network)
    logger.info(
        f"{KEY} {decay}: the {len(layers)} layers of {type(network).__name__} are "
        f"{'; '.join(', '.join(names) for names in layers)}"
    )
    factors = {
        f"{prefix}{name}.": decay ** (len(layers) - depth)
        for depth, names in enumerate(layers)
        for name in names
    }

    def factor(parameter: str) -> float:
        if not parameter.startswith(prefix):
            return 1.0
        found = [value for start, value in factors.items() if parameter.startswith(start)]
        # parameters outside all layers are embeddings, added to the first layer's output
        return found[0] if found else decay ** len(layers)

    return factor


def layers_of(network: nn.Module) -> list[list[str]]:
    """Return the module names of each layer, in the order of the network.

    A layer is an entry of a ``PretrainedNetwork``'s ``layer_names()``; otherwise a child of the
    network, or an item of its ``ModuleList``; and the norms that follow. If there is only one
    child, its children are used. They must be defined in the order of the forward pass.

    Raises:
        ValueError: if there are several ``ModuleList`` s, whose order of execution is unknown, or
            fewer than two layers.
    """
    path = ""
    children = _learning_children(network)
    names = network.layer_names() if isinstance(network, PretrainedNetwork) else None
    if names is not None:
        named = {name: network.get_submodule(name) for name in names}
        children = {name: child for name, child in named.items() if _has_parameters(child)}
    while len(children) == 1:
        ((name, child),) = children.items()
        path, children = f"{path}{name}.", _learning_children(child)
    lists = [name for name, child in children.items() if _is_list(child)]
    if len(lists) > 1 or not children:
        found = f"several lists of layers: {', '.join(lists)}" if lists else "no layers within"
        raise ValueError(
            f"{KEY} needs the order of the layers, and {type(network).__name__} has {found}. Set "
            "it to 1, and a rate for the whole backbone by SOLVER.BACKBONE_LR_FACTOR"
        )
    layers: list[list[str]] = []
    for name, child in children.items():
        if layers and isinstance(child, _NORMS):
            layers[-1].append(path + name)
        elif _is_list(child):
            layers += [[f"{path}{name}.{item}"] for item in _learning_children(child)]
        else:
            layers.append([path + name])
    return layers


def _learning_children(module: nn.Module) -> dict[str, nn.Module]:
    """Return the children that have parameters, frozen or not."""
    return {n: child for n, child in module.named_children() if _has_parameters(child)}


def _has_parameters(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def _is_list(module: nn.Module) -> bool:
    return isinstance(module, nn.ModuleList) and not isinstance(module, _NORMS)
