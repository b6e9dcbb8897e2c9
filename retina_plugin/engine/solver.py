"""Optimizers from the config: Detectron2's SGD, or AdamW, with a slower backbone on request."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from torch import nn

from retina_plugin.registry import unknown_name

BOTTOM_UP = "backbone.bottom_up."


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """``SOLVER.OPTIMIZER`` over the parameters that learn.

    ``SOLVER.BACKBONE_LR_FACTOR`` multiplies the rate of the pretrained part, ``backbone.bottom_up``
    (with no FPN: all of ``backbone``). Everything else is ``detectron2.solver.build_optimizer``'s.

    Raises:
        UnknownNameError: an unknown optimizer; lists the valid ones.
    """
    solver = cfg.SOLVER
    names = [name for name, _ in model.named_parameters()]
    pretrained = BOTTOM_UP if any(n.startswith(BOTTOM_UP) for n in names) else "backbone."

    def lr_factor(name: str) -> float:
        # Detectron2's own bias_lr_factor would overwrite the backbone's factor, not multiply it
        factor = solver.get("BACKBONE_LR_FACTOR", 1.0) if name.startswith(pretrained) else 1.0
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
        "AdamW": lambda: torch.optim.AdamW(parameters, **common),
    }
    if name not in builders:
        raise unknown_name("SOLVER.OPTIMIZER", name, builders)
    return maybe_add_gradient_clipping(cfg, builders[name]())
