"""The FPN whose P7 is a convolution of P6 as it is, as MMDetection's."""

from __future__ import annotations

from typing import Any

from detectron2.modeling.backbone.fpn import LastLevelP6P7
from torch import Tensor

from retina_plugin.modeling.necks.fpn_neck import FPNNeck
from retina_plugin.modeling.necks.stages import TOPS
from retina_plugin.registry import NECKS


class LinearLastLevelP6P7(LastLevelP6P7):
    """``LastLevelP6P7`` without the ReLU before P7."""

    def forward(self, c5: Tensor) -> list[Tensor]:
        """``(N, C, H, W)`` -> P6 and P7."""
        p6 = self.p6(c5)
        return [p6, self.p7(p6)]


@NECKS.register(defaults={"TOP": "C5"}, choices={"TOP": TOPS})
class LinearTopFPNNeck(FPNNeck):
    """:class:`FPNNeck` without the ReLU between P6 and P7, for weights trained in MMDetection.

    Parameters are named alike, so either neck loads the other's weights; P7 then differs.

    Source: ``mmdet.models.necks.FPN``, whose ``relu_before_extra_convs`` is off by default. Lin et
    al., Focal Loss for Dense Object Detection, 2017, footnote 2, has the ReLU.

    Args:
        arguments: of :class:`FPNNeck`.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        top = self.top_block
        self.top_block = LinearLastLevelP6P7(
            top.p6.in_channels, top.p6.out_channels, in_feature=top.in_feature
        )
