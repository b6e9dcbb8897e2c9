"""The paper's head: two towers of convolutions, shared by all levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from torch import Tensor, nn

from retina_plugin.modeling.heads.level_inputs import LevelInputs
from retina_plugin.modeling.heads.level_outputs import (
    anchor_counts,
    layer_of,
    output_conv,
    output_layers,
    prior_bias,
)
from retina_plugin.registry import HEADS

SHARED_DEFAULTS = {"LEVEL_SCALES": False}


@HEADS.register(defaults=SHARED_DEFAULTS)
class FocalRetinaNetHead(RetinaNetHead):
    """``RetinaNetHead``, which may have a different number of anchors on each level.

    The towers are shared by all levels. Where every level has the same number of anchors, so are
    the two output convolutions, and parameters and names are those of Detectron2's head. Else the
    levels with the same number of anchors share theirs: ``cls_score`` and ``bbox_pred`` are then
    ``ModuleDict`` s keyed by that number. Levels of other channels than the first come to the
    towers through a 1x1 convolution each.

    Subclasses with outputs of their own replace :meth:`forward`, and have ``level_inputs`` for what
    the towers get, :meth:`classify` and :meth:`regress` for the common outputs.

    Source: Lin et al. 2017, section 4; ``detectron2.modeling.meta_arch.retinanet.RetinaNetHead``.

    Args:
        input_shape: of the levels, P3 first.
        num_classes: K.
        num_anchors: A, one number or one a level.
        conv_dims: output channels of each tower's convolutions.
        norm: after each of them; see ``detectron2.layers.get_norm``.
        prior_prob: pi, the initial score of every class.
        box_dim: D, numbers that describe a box.
        level_scales: whether a factor of each level's deltas is learned, as in FCOS, ATSS and GFL.

    Raises:
        ValueError: ``num_anchors`` does not fit the levels.
    """

    @configurable
    def __init__(
        self,
        *,
        input_shape: list[ShapeSpec],
        num_classes: int,
        num_anchors: int | Sequence[int],
        conv_dims: Sequence[int],
        norm: str = "",
        prior_prob: float = 0.01,
        box_dim: int = 4,
        level_scales: bool = False,
    ) -> None:
        counts = anchor_counts(num_anchors, len(input_shape))
        super().__init__(
            input_shape=input_shape,
            num_classes=num_classes,
            num_anchors=counts[0],
            conv_dims=list(conv_dims),
            norm=norm,
            prior_prob=prior_prob,
        )
        self.counts = counts
        self.level_inputs = LevelInputs(input_shape)
        self.channels = channels = conv_dims[-1]
        differ = len(set(counts)) > 1
        if differ:
            bias = prior_bias(prior_prob)
            self.cls_score = output_layers(
                counts, lambda count: output_conv(channels, count * num_classes, bias)
            )
        if differ or box_dim != 4:
            self.bbox_pred = output_layers(
                counts, lambda count: output_conv(channels, count * box_dim, 0.0)
            )
        self.level_scales = nn.Parameter(torch.ones(len(counts))) if level_scales else None

    @classmethod
    def from_config(
        cls,
        cfg: CfgNode,
        input_shape: list[ShapeSpec],
        num_anchors: Sequence[int],
        box_dim: int = 4,
    ) -> dict[str, Any]:
        """The stock keys."""
        retinanet = cfg.MODEL.RETINANET
        return {
            "input_shape": input_shape,
            "num_classes": retinanet.NUM_CLASSES,
            "num_anchors": num_anchors,
            "conv_dims": [input_shape[0].channels] * retinanet.NUM_CONVS,
            "norm": retinanet.NORM,
            "prior_prob": retinanet.PRIOR_PROB,
            "box_dim": box_dim,
        }

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """``(N, C, H, W)`` a level -> logits ``(N, A*K, H, W)``, deltas ``(N, A*D, H, W)``."""
        logits, deltas = [], []
        for level, feature in enumerate(self.level_inputs(features)):
            logits.append(self.classify(level, self.cls_subnet(feature)))
            deltas.append(self.regress(level, self.bbox_subnet(feature)))
        return logits, deltas

    def classify(self, level: int, tower: Tensor) -> Tensor:
        """``(N, C, H, W)`` of the classification tower -> logits ``(N, A*K, H, W)``."""
        return layer_of(self.cls_score, self.counts[level])(tower)

    def regress(self, level: int, tower: Tensor) -> Tensor:
        """``(N, C, H, W)`` of the box tower -> deltas ``(N, A*D, H, W)``."""
        deltas = layer_of(self.bbox_pred, self.counts[level])(tower)
        return deltas if self.level_scales is None else deltas * self.level_scales[level]
