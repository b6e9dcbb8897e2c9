"""The focal loss with a weight for each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from retina_plugin.modeling.contracts import DenseTargets, PositiveBoxes
from retina_plugin.modeling.losses.dense_sum import dense_sum, shifted, weighted
from retina_plugin.modeling.losses.focal_loss import FocalLoss, focal_background, focal_objects
from retina_plugin.modeling.stock_names import StockNames
from retina_plugin.registry import CLS_LOSSES

NODE = "MODEL.RETINANET.CLS_LOSS.ClassWeightedFocalLoss"


def effective_number_weights(counts: Sequence[int], beta: float) -> list[float]:
    """``(1 - beta) / (1 - beta^n)`` of n objects a class, scaled to a mean of 1.

    A class without objects gets the weight of one with a single object.

    Source: Cui et al., Class-Balanced Loss Based on Effective Number of Samples, 2019, equation 9.

    Raises:
        ValueError: beta is not in [0, 1), or a count negative.
    """
    if not 0 <= beta < 1:
        raise ValueError(f"{NODE}.BETA must be in [0, 1), got {beta}")
    if any(count < 0 for count in counts):
        raise ValueError(f"{NODE}.COUNTS must be 0 or more, got {list(counts)}")
    weights = [(1 - beta) / (1 - beta ** max(count, 1)) for count in counts]
    return [weight * len(weights) / sum(weights) for weight in weights]


@CLS_LOSSES.register(defaults={"WEIGHTS": (), "COUNTS": (), "BETA": 0.999})
class ClassWeightedFocalLoss(StockNames, nn.Module):
    """The focal loss, all terms of class k times ``w_k``, those of background anchors too.

    The weights are ``WEIGHTS``, or made from how many objects of each class there are (``COUNTS``)
    by :func:`effective_number_weights`. With neither given, ``train_net.py`` counts the training
    data.

    Args:
        num_classes: K.
        alpha, gamma: the stock keys, see :class:`FocalLoss`.
        weights: weight of each class.
        counts: number of objects of each class, from which the weights are computed.
        beta: strength of the class balance; 0 for none, towards 1 the weights become ``1 / n``.

    Raises:
        ValueError: not exactly one of weights and counts, or not one a class.
    """

    weights: Tensor

    stock_names = {"focal_loss_alpha": "alpha", "focal_loss_gamma": "gamma"}

    def __init__(
        self,
        *,
        num_classes: int,
        alpha: float = 0.25,
        gamma: float = 2.0,
        weights: Sequence[float] = (),
        counts: Sequence[int] = (),
        beta: float = 0.999,
    ) -> None:
        super().__init__()
        plain = FocalLoss(alpha=alpha, gamma=gamma)  # checks them
        self.alpha, self.gamma = plain.alpha, plain.gamma
        given = weights or counts
        if bool(weights) == bool(counts) or len(given) != num_classes:
            raise ValueError(
                f"{NODE} needs WEIGHTS or COUNTS, one number for each of the {num_classes} "
                f"classes, got {len(weights)} and {len(counts)}"
            )
        weights = list(weights) or effective_number_weights(counts, beta)
        if min(weights) < 0:
            raise ValueError(f"{NODE}.WEIGHTS must be 0 or more, got {weights}")
        # not in checkpoints: a config says them
        self.register_buffer("weights", torch.tensor(weights), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The stock keys."""
        retinanet = cfg.MODEL.RETINANET
        return {"num_classes": retinanet.NUM_CLASSES, **FocalLoss.from_config(cfg)}

    def forward(
        self,
        logits: Sequence[Tensor],
        targets: DenseTargets,
        positives: PositiveBoxes | None = None,
    ) -> Tensor:
        """See :class:`retina_plugin.modeling.contracts.ClassificationLoss`."""

        def objects(x: Tensor) -> Tensor:
            loss = focal_objects(x, self.alpha, shifted(self.gamma, targets))
            return weighted(loss * self.weights[targets.classes], targets)

        return dense_sum(
            logits,
            targets,
            lambda x, factor: focal_background(x, self.alpha, self.gamma, factor),
            objects,
            per_class=[self.weights],
        )
