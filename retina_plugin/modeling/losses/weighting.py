"""How much the losses count, beside what each of them is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from torch import Tensor

from retina_plugin.config.keys import check_choice, defaults_below
from retina_plugin.modeling.contracts import DenseTargets, PositiveBoxes
from retina_plugin.modeling.geometry import centreness
from retina_plugin.registry import find_node, warn_of_unread_keys

KEY = "MODEL.RETINANET.LOSS"


def by_quality(_: Sequence[Tensor], __: DenseTargets, positives: PositiveBoxes) -> Tensor:
    """The score that the box deserves: VarifocalNet's, TOOD's."""
    return positives.quality


def by_score(logits: Sequence[Tensor], targets: DenseTargets, _: PositiveBoxes) -> Tensor:
    """The best score of any class: GFL's."""
    own = targets.positives.gather([x.detach() for x in logits], targets.num_classes)
    return own.float().sigmoid().amax(dim=1)


def by_centreness(_: Sequence[Tensor], __: DenseTargets, positives: PositiveBoxes) -> Tensor:
    """How central the anchor lies in its object: FCOS's and ATSS's."""
    return centreness(positives.anchors, positives.gt_boxes)


_BOXES_BY = {"quality": by_quality, "score": by_score, "centreness": by_centreness}


class LossWeighting:
    """``MODEL.RETINANET.LOSS``: what the sums of the losses are, before the normalizer divides.

    Args:
        cls: factor of the classification loss.
        box_reg: factor of the box loss.
        boxes_by: what a positive's box loss is multiplied by: ``none`` (1), ``quality``, ``score``
            or ``centreness``, see the functions of this file. The weights are scaled to the sum of
            ``count``, so that dividing by that makes a weighted mean: of this worker's images, also
            where the normalizer averages over workers.
        count: what the normalizer counts: ``positives``, or the sum of their ``quality``.

    Raises:
        UnknownNameError: lists the valid names.
        ValueError: a factor is negative.
    """

    def __init__(
        self,
        *,
        cls: float = 1.0,
        box_reg: float = 1.0,
        boxes_by: str = "none",
        count: str = "positives",
    ) -> None:
        for key, factor in (("CLS", cls), ("BOX_REG", box_reg)):
            if not factor >= 0:
                raise ValueError(f"{KEY}.{key} must be 0 or more, got {factor}")
        check_choice(f"{KEY}.BOXES_BY", boxes_by)
        check_choice(f"{KEY}.COUNT", count)
        self.cls = cls
        self.box_reg = box_reg
        self.counts_quality = count == "quality"
        self._weigh = _BOXES_BY.get(boxes_by)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Of ``cfg.MODEL.RETINANET.LOSS``, which need not be there; unknown keys are warned of."""
        warn_of_unread_keys(cfg, KEY)
        node = find_node(cfg, KEY) or {}
        return {key.lower(): node.get(key, value) for key, value in defaults_below(KEY).items()}

    def count(self, targets: DenseTargets, positives: PositiveBoxes) -> Tensor:
        """What the normalizer is given: a scalar tensor."""
        return positives.quality.sum() if self.counts_quality else targets.num_positives

    def box_sum(
        self,
        losses: Tensor,
        count: Tensor,
        logits: Sequence[Tensor],
        targets: DenseTargets,
        positives: PositiveBoxes,
    ) -> Tensor:
        """The weighted sum of the positives' box losses ``(P,)``.

        ``gt_weight`` of the objects, where the ground truth has it, is another factor.
        """
        if targets.weights is not None:
            losses = losses * targets.weights
        if self._weigh is not None:
            weights = self._weigh(logits, targets, positives)
            losses = losses * weights * (count / weights.sum().clamp(min=1e-6))
        return losses.sum() * self.box_reg
