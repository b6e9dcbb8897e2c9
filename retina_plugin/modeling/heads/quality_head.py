"""The paper's head, and a branch that says how good each box is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.config import configurable
from detectron2.structures import Boxes
from detectron2.structures.boxes import matched_pairwise_iou
from torch import Tensor
from torch.nn import functional as F

from retina_plugin.modeling.abilities import ExtraLosses, FusedLogits
from retina_plugin.modeling.contracts import DenseTargets, PositiveBoxes, Predictions
from retina_plugin.modeling.geometry import centreness
from retina_plugin.modeling.heads.focal_retinanet_head import SHARED_DEFAULTS, FocalRetinaNetHead
from retina_plugin.modeling.heads.level_outputs import layer_of, output_conv, output_layers
from retina_plugin.modeling.heads.score_fusion import fuse_logits
from retina_plugin.registry import HEADS, unknown_name

KEY = "MODEL.RETINANET.HEAD.QualityHead"


def centreness_of(positives: PositiveBoxes) -> Tensor:
    """How central the anchor lies in its object: FCOS's and ATSS's."""
    return centreness(positives.anchors, positives.gt_boxes)


def iou_of(positives: PositiveBoxes) -> Tensor:
    """The IoU of the predicted box: IoU-aware RetinaNet's."""
    # detached, not under no_grad: the boxes are kept, and a later loss may want their gradient
    return matched_pairwise_iou(Boxes(positives.boxes.detach()), Boxes(positives.gt_boxes))


_TARGETS = {"centreness": centreness_of, "iou": iou_of}


@HEADS.register(
    defaults={
        **SHARED_DEFAULTS,
        "TARGET": "centreness",
        "LOSS_WEIGHT": 1.0,
        "POWERS": (0.5, 0.5),
    },
    choices={"TARGET": _TARGETS},
)
class QualityHead(FocalRetinaNetHead, ExtraLosses, FusedLogits):
    """:class:`FocalRetinaNetHead` with one more map an anchor, ``quality``, on the box tower.

    Learned where there are objects, by binary cross entropy to the target, each object counting
    ``gt_weight``; at inference the score of a class is ``p^a q^b``, p being the class's and q the
    quality's sigmoid. ``(0.5, 0.5)`` is ``sqrt(p q)``, ``(1, 1)`` is ``p q``: the same order, but
    other scores for the threshold. ``(a, 1 - a)`` is IoU-aware RetinaNet's.

    Source: Tian et al., FCOS, 2019, section 3.3; Zhang et al., ATSS, 2020; Wu et al., IoU-aware
    Single-stage Object Detector, 2020, equations 1 and 3. There the gradient of the IoU's loss goes
    into the box as well, here a target is a number.

    Args:
        target: quality that is learned: ``centreness`` of the anchor, or ``iou`` of the predicted
            box.
        loss_weight: weight of ``loss_quality``.
        powers: exponents ``(a, b)`` of score and quality.

    The other arguments are :class:`FocalRetinaNetHead`'s.

    Raises:
        UnknownNameError: the target; lists the valid ones.
        ValueError: a negative number, or not two powers of which one is above 0.
    """

    @configurable
    def __init__(
        self,
        *,
        target: str = "centreness",
        loss_weight: float = 1.0,
        powers: Sequence[float] = (0.5, 0.5),
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        if target not in _TARGETS:
            raise unknown_name(f"{KEY}.TARGET", target, _TARGETS)
        if not loss_weight >= 0:
            raise ValueError(f"{KEY}.LOSS_WEIGHT must be 0 or more, got {loss_weight}")
        if len(powers) != 2 or not (min(powers) >= 0 and max(powers) > 0):
            raise ValueError(
                f"{KEY}.POWERS needs two numbers for class and quality, 0 or more but not both 0, "
                f"got {list(powers)}"
            )
        self._target = _TARGETS[target]
        self.loss_weight = loss_weight
        self.powers = tuple(powers)
        self.quality = output_layers(
            self.counts, lambda count: output_conv(self.channels, count, 0.0)
        )

    def forward(
        self, features: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor], dict[str, list[Tensor]]]:
        """Logits and deltas as the parent, and ``quality``: ``(N, A, H, W)`` logits a level."""
        features = self.level_inputs(features)
        logits, deltas, quality = [], [], []
        for level, (count, feature) in enumerate(zip(self.counts, features, strict=True)):
            logits.append(self.classify(level, self.cls_subnet(feature)))
            tower = self.bbox_subnet(feature)
            deltas.append(self.regress(level, tower))
            quality.append(layer_of(self.quality, count)(tower))
        return logits, deltas, {"quality": quality}

    def extra_losses(
        self, predictions: Predictions, targets: DenseTargets, positives: PositiveBoxes
    ) -> dict[str, Tensor]:
        """``loss_quality``; see :class:`retina_plugin.modeling.abilities.ExtraLosses`."""
        logits = targets.positives.gather(predictions.extras["quality"], 1).squeeze(1).float()
        wanted = self._target(positives).to(logits.dtype)
        losses = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        if targets.weights is not None:
            losses = losses * targets.weights
        return {"loss_quality": losses.sum() * self.loss_weight}

    def fused_logits(self, predictions: Predictions) -> list[Tensor]:
        """See :class:`retina_plugin.modeling.abilities.FusedLogits`."""
        return [
            fuse_logits(logits, quality, self.powers)
            for logits, quality in zip(
                predictions.logits, predictions.extras["quality"], strict=True
            )
        ]
