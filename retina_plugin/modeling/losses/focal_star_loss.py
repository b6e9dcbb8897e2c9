"""The focal loss's other form, of the paper's appendix."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from retina_plugin.modeling.contracts import DenseTargets, PositiveBoxes
from retina_plugin.modeling.losses.dense_sum import dense_sum, shifted, weighted
from retina_plugin.modeling.softplus import softplus
from retina_plugin.registry import CLS_LOSSES


def focal_star_background(logits: Tensor, alpha: float, gamma: float, beta: float) -> Tensor:
    """Sum of the loss of target 0 over logits x, which its derivative overwrites.

    ``(1 - alpha) softplus(gamma x - beta) / gamma``, whose derivative is a sigmoid.
    """
    scaled = logits.mul_(gamma).sub_(beta)
    total = softplus(scaled).sum() * ((1 - alpha) / gamma)
    scaled.sigmoid_().mul_(1 - alpha)
    return total


@CLS_LOSSES.register(defaults={"ALPHA": 0.25, "GAMMA": 4.0, "BETA": 0.0})
class FocalStarLoss(nn.Module):
    """FL*: ``-alpha_t log(sigmoid(gamma x_t + beta)) / gamma``.

    x_t is the logit of an object's own class, else the negative logit. Objects with
    ``gt_gamma_shift`` have gamma less that, but 1 at least, which is cross entropy; with
    ``gt_weight`` they count that much.

    Source: Lin et al. 2017, appendix A, equations 9 and 10. Its table 3 has 33.9 AP for gamma 4,
    beta 0, and 33.8 for gamma 2, beta 1, where the focal loss has 34.0.

    Args:
        alpha: weight of objects; that of background is ``1 - alpha``.
        gamma: steepness of the sigmoid.
        beta: shift of the sigmoid.

    Raises:
        ValueError: alpha is not in [0, 1], or gamma not positive.
    """

    def __init__(self, *, alpha: float = 0.25, gamma: float = 4.0, beta: float = 0.0) -> None:
        super().__init__()
        node = "MODEL.RETINANET.CLS_LOSS.FocalStarLoss"
        if not 0 <= alpha <= 1:
            raise ValueError(f"{node}.ALPHA must be in [0, 1], got {alpha}")
        if not gamma > 0:
            raise ValueError(f"{node}.GAMMA must be above 0, got {gamma}")
        self.alpha, self.gamma, self.beta = alpha, gamma, beta

    def forward(
        self,
        logits: Sequence[Tensor],
        targets: DenseTargets,
        positives: PositiveBoxes | None = None,
    ) -> Tensor:
        """See :class:`retina_plugin.modeling.contracts.ClassificationLoss`."""

        def objects(x: Tensor) -> Tensor:
            gamma = shifted(self.gamma, targets)
            if isinstance(gamma, Tensor):
                gamma = gamma.clamp(min=min(self.gamma, 1.0))
            loss = F.softplus(-(gamma * x + self.beta)) / gamma
            return weighted(loss * self.alpha, targets)

        return dense_sum(
            logits,
            targets,
            lambda x: focal_star_background(x, self.alpha, self.gamma, self.beta),
            objects,
        )
