"""The paper's head: two towers of convolutions, shared by all levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from torch import Tensor, nn

from retina_plugin.registry import HEADS


@HEADS.register()
class FocalRetinaNetHead(RetinaNetHead):
    """``RetinaNetHead``, which may have a different number of anchors on each level.

    The towers are shared by all levels. Where every level has the same number of anchors, so are
    the two output convolutions, and parameters and names are those of Detectron2's head. Else the
    levels with the same number of anchors share theirs: ``cls_score`` and ``bbox_pred`` are then
    ``ModuleDict`` s keyed by that number.

    Source: Lin et al. 2017, section 4; ``detectron2.modeling.meta_arch.retinanet.RetinaNetHead``.

    Args:
        input_shape: of the levels, P3 first.
        num_classes: K.
        num_anchors: A, one number or one a level.
        conv_dims: output channels of each tower's convolutions.
        norm: after each of them; see ``detectron2.layers.get_norm``.
        prior_prob: pi, the initial score of every class.
        box_dim: D, numbers that describe a box.

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
    ) -> None:
        levels = len(input_shape)
        counts = [num_anchors] * levels if isinstance(num_anchors, int) else list(num_anchors)
        if len(counts) != levels:
            raise ValueError(f"num_anchors has {len(counts)} entries for {levels} levels: {counts}")
        super().__init__(
            input_shape=input_shape,
            num_classes=num_classes,
            num_anchors=counts[0],
            conv_dims=list(conv_dims),
            norm=norm,
            prior_prob=prior_prob,
        )
        self._counts = tuple(counts)
        if box_dim != 4:
            self.bbox_pred = _output_conv(self.bbox_pred.in_channels, counts[0] * box_dim, 0.0)
        if len(set(counts)) > 1:
            self.cls_score = _one_per_count(self.cls_score, counts)
            self.bbox_pred = _one_per_count(self.bbox_pred, counts)

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
        if not isinstance(self.cls_score, nn.ModuleDict):
            return super().forward(features)
        logits = [
            self.cls_score[str(count)](self.cls_subnet(feature))
            for count, feature in zip(self._counts, features, strict=True)
        ]
        deltas = [
            self.bbox_pred[str(count)](self.bbox_subnet(feature))
            for count, feature in zip(self._counts, features, strict=True)
        ]
        return logits, deltas


def _one_per_count(first: nn.Conv2d, counts: Sequence[int]) -> nn.ModuleDict:
    """One output convolution per distinct number of anchors, initialised like ``first``."""
    per_anchor = first.out_channels // counts[0]
    convs = nn.ModuleDict({str(counts[0]): first})
    for count in counts:
        if str(count) not in convs:
            bias = first.bias[0].item()  # the prior, or 0
            convs[str(count)] = _output_conv(first.in_channels, count * per_anchor, bias)
    return convs


def _output_conv(in_channels: int, out_channels: int, bias: float) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.constant_(conv.bias, bias)
    return conv
