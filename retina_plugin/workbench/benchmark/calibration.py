"""Make a random network behave like a trained one: activations, scores and boxes as spread."""

from __future__ import annotations

import math
from typing import Any

import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import Tensor, nn

SCORE = 0.05
LOGIT_SPREAD, DELTA_SPREAD = 1.5, 0.3


@torch.no_grad()
def calibrate(
    model: nn.Module, batch: list[dict[str, Any]], *, candidates: int | None = None
) -> None:
    """Set the norms' statistics and the scale of the head's outputs by what ``batch`` gives.

    Frozen statistics that normalize nothing let a random ResNet explode, and the initial class
    prior puts all scores at 0.01, below the threshold: one would measure infinities, or a
    post-processor with nothing to do.

    Args:
        model: a Detectron2 ``DenseDetector``; left in ``eval`` mode. Its norms must run as modules,
            not folded into convolutions.
        batch: Detectron2's inputs.
        candidates: how many scores an image shall have above 0.05, at most one in twenty. None:
            logits spread by a standard deviation of 1.5, whatever that gives.
    """
    set_norm_statistics(model, batch)
    model.eval()
    logits, deltas = head_outputs(model, batch)
    scores, boxes = model.head.cls_score, model.head.bbox_pred
    if not isinstance(scores, nn.Conv2d) or not isinstance(boxes, nn.Conv2d):
        return  # a head of another make keeps its initial outputs
    _scale_to_spread(boxes, deltas, DELTA_SPREAD)
    if candidates is None:
        _scale_to_spread(scores, logits, LOGIT_SPREAD)
    else:
        _scale_to_candidates(scores, logits, candidates * len(batch))


def head_outputs(model: nn.Module, batch: list[dict[str, Any]]) -> Any:
    """What the head makes of ``batch``: preprocessing, backbone and head alone."""
    features = model.backbone(model.preprocess_image(batch).tensor)
    return model.head([features[name] for name in model.head_in_features])


def set_norm_statistics(model: nn.Module, batch: list[dict[str, Any]]) -> None:
    """Set each norm's running statistics to what it sees on ``batch``, in one forward pass.

    A frozen norm's are set just before it runs, so that the next stage sees it normalize.
    """

    def freeze_at_input(norm: FrozenBatchNorm2d, inputs: tuple[Tensor]) -> None:
        norm.running_mean.copy_(inputs[0].mean((0, 2, 3)))
        norm.running_var.copy_(inputs[0].var((0, 2, 3)))

    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0  # the running statistics become this batch's
    frozen = [m for m in model.modules() if isinstance(m, FrozenBatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(freeze_at_input) for norm in frozen]
    model.train()
    head_outputs(model, batch)
    for hook in hooks:
        hook.remove()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _without_bias(layer: nn.Conv2d, maps: list[Tensor]) -> Tensor:
    """What the weights alone give: a layer's channels share one bias per group."""
    return torch.cat([(x - layer.bias[None, :, None, None]).flatten() for x in maps])


def _scale_to_spread(layer: nn.Conv2d, maps: list[Tensor], spread: float) -> None:
    layer.weight.mul_(spread / _without_bias(layer, maps).std())


def _scale_to_candidates(layer: nn.Conv2d, maps: list[Tensor], count: int) -> None:
    """Let ``count`` logits of the batch lie above the score; a prior above it leaves no way."""
    distance = math.log(SCORE / (1 - SCORE)) - layer.bias.mean().item()
    values = _without_bias(layer, maps)
    last = values.topk(min(count, -(-len(values) // 20))).values[-1]
    if distance > 0 and last > 0:
        layer.weight.mul_(distance / last)
