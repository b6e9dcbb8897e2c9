"""Equalized focal loss: rare classes are focused more, and weigh more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import Tensor, nn

from retina_plugin.modeling.contracts import DenseTargets, PositiveBoxes
from retina_plugin.modeling.losses.dense_sum import dense_sum, shifted, weighted
from retina_plugin.modeling.losses.focal_loss import FocalLoss, focal_background, focal_objects
from retina_plugin.modeling.stock_names import StockNames
from retina_plugin.registry import CLS_LOSSES

_TINY = 1e-10


@CLS_LOSSES.register(defaults={"SCALE": 8.0})
class EqualizedFocalLoss(StockNames, nn.Module):
    """The focal loss with an exponent and a weight for each class::

        gamma_j = gamma + scale (1 - g_j)
        loss of class j = gamma_j / gamma * focal loss with gamma_j

    ``g_j`` in [0, 1] is the sum of the absolute gradients of class j's objects over that of its
    background, since the training began: near 0 for a rare class. The sums are buffers, so a
    resumed run goes on with them; several workers add theirs.

    Source: Li et al., Equalized Focal Loss for Dense Long-Tailed Object Detection, 2022, equations
    5 and 6. The gradients are those of the sum, before the normalizer: a quotient of sums of the
    same steps. Until there are any, g is 1.

    Args:
        num_classes: K.
        alpha, gamma: the stock keys, see :class:`FocalLoss`; gamma above 0.
        scale: increase of a class's exponent as its gradient ratio falls from 1 to 0.

    Raises:
        ValueError: gamma is not positive, or scale negative.
    """

    positive_gradients: Tensor
    negative_gradients: Tensor

    stock_names = {"focal_loss_alpha": "alpha", "focal_loss_gamma": "gamma"}

    def __init__(
        self, *, num_classes: int, alpha: float = 0.25, gamma: float = 2.0, scale: float = 8.0
    ) -> None:
        super().__init__()
        plain = FocalLoss(alpha=alpha, gamma=gamma)  # checks them
        if gamma == 0:
            raise ValueError("EqualizedFocalLoss needs MODEL.RETINANET.FOCAL_LOSS_GAMMA above 0")
        if not scale >= 0:
            node = "MODEL.RETINANET.CLS_LOSS.EqualizedFocalLoss"
            raise ValueError(f"{node}.SCALE must be 0 or more, got {scale}")
        self.alpha, self.gamma, self.scale = plain.alpha, plain.gamma, scale
        self.register_buffer("positive_gradients", torch.zeros(num_classes))
        self.register_buffer("negative_gradients", torch.zeros(num_classes))

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The stock keys."""
        retinanet = cfg.MODEL.RETINANET
        return {"num_classes": retinanet.NUM_CLASSES, **FocalLoss.from_config(cfg)}

    @property
    def gammas(self) -> Tensor:
        """``(K,)``, the exponent of each class."""
        share = self.positive_gradients / (self.negative_gradients + _TINY)
        share = torch.where(self.negative_gradients > 0, share.clamp(max=1), 1)
        return self.gamma + self.scale * (1 - share)

    def forward(
        self,
        logits: Sequence[Tensor],
        targets: DenseTargets,
        positives: PositiveBoxes | None = None,
    ) -> Tensor:
        """See ``ClassificationLoss`` in ``modeling/contracts.py``; counts while training."""
        gammas = self.gammas
        factors = gammas / self.gamma

        def objects(x: Tensor) -> Tensor:
            gamma = shifted(gammas[targets.classes].to(x.dtype), targets)
            loss = focal_objects(x, self.alpha, gamma) * factors[targets.classes]
            return weighted(loss, targets)

        return dense_sum(
            logits,
            targets,
            lambda x, gamma, factor: focal_background(x, self.alpha, gamma, factor),
            objects,
            per_class=[gammas, factors],
            observe=self._count if self.training else None,
        )

    def _count(self, positive: Tensor, negative: Tensor) -> None:
        sums = torch.stack([positive, negative])
        if comm.get_world_size() > 1:
            dist.all_reduce(sums)
        self.positive_gradients += sums[0]
        self.negative_gradients += sums[1]
