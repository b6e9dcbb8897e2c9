"""The focal loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn
from torch.nn import functional as F

from retina_plugin.modeling.contracts import DenseTargets, PositiveBoxes
from retina_plugin.modeling.losses.dense_sum import dense_sum, shifted, weighted
from retina_plugin.modeling.softplus import softplus
from retina_plugin.modeling.stock_names import StockNames
from retina_plugin.registry import CLS_LOSSES


def focal_background(
    logits: Tensor, alpha: float, gamma: float | Tensor, factor: Tensor | None = None
) -> Tensor:
    """Sum of the focal loss of target 0 over logits x, which its derivative overwrites.

    ``p = sigmoid(x)``, ``s = softplus(x) = -log(1 - p)``::

        loss = (1 - alpha) p^gamma s
        d loss / dx = (1 - alpha) p^gamma (gamma (1 - p) s + p)

    Every line is a pass over all logits of the model: as few as can be, and in place. A ``factor``
    multiplies both; it and gamma are broadcast.
    """
    probability = logits.sigmoid()
    cross_entropy = softplus(logits)
    weight = torch.pow(probability, gamma, out=logits)
    if alpha >= 0:
        weight.mul_(1 - alpha)
    if factor is not None:
        weight.mul_(factor)
    slope = (1 - probability).mul_(cross_entropy)
    total = cross_entropy.mul_(weight).sum()
    if isinstance(gamma, Tensor):
        weight.mul_(probability.addcmul_(slope, gamma.expand_as(slope)))
    else:
        weight.mul_(probability.add_(slope, alpha=gamma))
    return total


def focal_objects(logits: Tensor, alpha: float, gamma: float | Tensor) -> Tensor:
    """Focal loss of target 1: ``-alpha (1 - p)^gamma log p``; differentiable, any shape.

    ``(1 - p)^gamma`` goes through its logarithm: where 1 - p underflows, the derivative of a power
    below 1 would be infinite.
    """
    loss = -torch.exp(gamma * F.logsigmoid(-logits)) * F.logsigmoid(logits)
    return loss * alpha if alpha >= 0 else loss


def focal_loss(
    logits: Sequence[Tensor], targets: DenseTargets, *, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """Focal loss summed over all anchors that are not ignored.

    ``FL(p_t) = -alpha_t (1 - p_t)^gamma log(p_t)``, ``alpha_t`` being alpha for an object's own
    class and 1 - alpha else; a negative alpha means no weight. An object with ``gt_gamma_shift``
    has gamma less that, one with ``gt_weight`` counts that much.

    Args:
        logits: a level's ``(N, A*K, H, W)`` each.
        targets: labels of all anchors.
        alpha: weight of the objects, or negative.
        gamma: focusing exponent, >= 0; 0 is (weighted) binary cross entropy.

    Returns:
        Scalar in fp32 at least. First derivatives only: the gradient is analytic.

    Source: Lin et al. 2017, equation 5. Equal to ``fvcore.nn.sigmoid_focal_loss`` summed over
    one-hot targets of the anchors with labels >= 0; the way there is ``dense_sum``'s.
    """
    return dense_sum(
        logits,
        targets,
        background=lambda x: focal_background(x, alpha, gamma),
        objects=lambda x: weighted(focal_objects(x, alpha, shifted(gamma, targets)), targets),
    )


@CLS_LOSSES.register()
class FocalLoss(StockNames, nn.Module):
    """:func:`focal_loss` with the alpha and gamma of the config.

    Raises:
        ValueError: gamma is negative or alpha above 1.
    """

    stock_names = {"focal_loss_alpha": "alpha", "focal_loss_gamma": "gamma"}

    def __init__(self, *, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__()
        if gamma < 0:
            raise ValueError(f"MODEL.RETINANET.FOCAL_LOSS_GAMMA must be >= 0, got {gamma}")
        if alpha > 1:
            raise ValueError(
                "MODEL.RETINANET.FOCAL_LOSS_ALPHA must be in [0, 1], or negative for no weight, "
                f"got {alpha}"
            )
        self.alpha = alpha
        self.gamma = gamma

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The stock keys."""
        return {
            "alpha": cfg.MODEL.RETINANET.FOCAL_LOSS_ALPHA,
            "gamma": cfg.MODEL.RETINANET.FOCAL_LOSS_GAMMA,
        }

    def forward(
        self,
        logits: Sequence[Tensor],
        targets: DenseTargets,
        positives: PositiveBoxes | None = None,
    ) -> Tensor:
        """See :class:`retina_plugin.modeling.contracts.ClassificationLoss`."""
        return focal_loss(logits, targets, alpha=self.alpha, gamma=self.gamma)
