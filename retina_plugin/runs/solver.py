"""Build SGD or AdamW from the config, with learning rate factors for pretrained layers."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver.build import (
    GradientClipType,
    get_default_optimizer_params,
    maybe_add_gradient_clipping,
    reduce_param_groups,
)
from torch import nn

from retina_plugin.config.keys import check_choice
from retina_plugin.modeling.pretrained_part import pretrained_part_of_detector
from retina_plugin.registry import unknown_name
from retina_plugin.runs.layer_decay import OWN_NORMS, layer_decay


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Build ``SOLVER.OPTIMIZER`` over the trainable parameters.

    ``SOLVER.BACKBONE_LR_FACTOR`` multiplies the learning rate of the pretrained part, see
    :func:`pretrained_part_of_detector`, and ``SOLVER.LAYER_DECAY`` that of its layers. Everything
    else is ``detectron2.solver.build_optimizer``'s.

    Deviation: with AdamW, ``SOLVER.WEIGHT_DECAY_NORM`` applies to Detectron2's own norms (``LN``,
    and ``BN`` in its RetinaNet head), which Detectron2 ignores; SGD behaves as in Detectron2.

    Raises:
        UnknownNameError: if the optimizer or clipping type is unknown; lists the valid ones.
        ValueError: if ``SOLVER.LAYER_DECAY`` is out of range, or the backbone's layer order is
            unknown.
    """
    solver = cfg.SOLVER
    pretrained, _ = pretrained_part_of_detector(model)
    decay = layer_decay(model, solver.get("LAYER_DECAY", 1.0))

    def lr_factor(name: str) -> float:
        # Detectron2's own bias_lr_factor would overwrite the backbone's factor, not multiply it
        factor = solver.get("BACKBONE_LR_FACTOR", 1.0) if name.startswith(pretrained) else 1.0
        factor *= decay(name)
        return factor * (solver.BIAS_LR_FACTOR if name.rpartition(".")[2] == "bias" else 1.0)

    parameters = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        lr_factor_func=lr_factor,
    )
    common = {"lr": solver.BASE_LR, "weight_decay": solver.WEIGHT_DECAY, "foreach": True}
    momentum = {"momentum": solver.MOMENTUM, "nesterov": solver.NESTEROV}
    name = solver.get("OPTIMIZER", "SGD")
    builders = {
        "SGD": lambda: torch.optim.SGD(parameters, **common, **momentum),
        "AdamW": lambda: torch.optim.AdamW(_with_own_norms(parameters, cfg, model), **common),
    }
    check_choice("SOLVER.OPTIMIZER", name)
    kinds = [kind.value for kind in GradientClipType]
    if solver.CLIP_GRADIENTS.ENABLED and solver.CLIP_GRADIENTS.CLIP_TYPE not in kinds:
        clip_type = solver.CLIP_GRADIENTS.CLIP_TYPE
        raise unknown_name("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", clip_type, kinds)
    return maybe_add_gradient_clipping(cfg, builders[name]())


def _with_own_norms(groups: list[dict[str, Any]], cfg: CfgNode, model: nn.Module) -> Any:
    """Apply the weight decay of norms to Detectron2's own norms in the parameter groups."""
    solver = cfg.SOLVER
    norms = [
        parameter
        for module in model.modules()
        if isinstance(module, OWN_NORMS)
        for name, parameter in module.named_parameters(recurse=False)
        # the setting for biases takes precedence, as for other norms
        if parameter.requires_grad and (name != "bias" or solver.WEIGHT_DECAY_BIAS is None)
    ]
    if solver.WEIGHT_DECAY_NORM is None:
        return groups
    return reduce_param_groups(
        [*groups, {"params": norms, "weight_decay": solver.WEIGHT_DECAY_NORM}]
    )
