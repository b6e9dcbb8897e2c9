"""The paper's head in separable convolutions, for small devices."""

from __future__ import annotations

from typing import Any

from detectron2.config import configurable
from detectron2.layers import DepthwiseSeparableConv2d
from torch import nn

from retina_plugin.modeling.heads.focal_retinanet_head import SHARED_DEFAULTS, FocalRetinaNetHead
from retina_plugin.registry import HEADS, unknown_name

_ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6, "silu": nn.SiLU, "hardswish": nn.Hardswish}


@HEADS.register(
    defaults={**SHARED_DEFAULTS, "ACTIVATION": "relu"}, choices={"ACTIVATION": _ACTIVATIONS}
)
class SeparableHead(FocalRetinaNetHead):
    """:class:`FocalRetinaNetHead` whose convolutions are a depthwise 3x3 and a pointwise 1x1 one.

    That takes ``1 / C' + 1 / 9`` of the multiplications, C' being the output channels. Norm
    (``MODEL.RETINANET.NORM``) and activation follow the pointwise one, as in EfficientDet. The
    output layers are separable too, so that no weights of other heads fit.

    Source: Tan et al., EfficientDet, 2020, section 4; the convolutions are
    ``detectron2.layers.DepthwiseSeparableConv2d``. Towers start with He's deviation (of a normal of
    std 0.01 nothing would be left after nine products and no norm), the outputs with 0.01.

    Args:
        activation: activation function: ``relu``, ``relu6``, ``silu`` or ``hardswish``.

    The other arguments are :class:`FocalRetinaNetHead`'s.

    Raises:
        UnknownNameError: the activation; lists the valid ones.
    """

    @configurable
    def __init__(
        self,
        *,
        activation: str = "relu",
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        if activation not in _ACTIVATIONS:
            key = "MODEL.RETINANET.HEAD.SeparableHead.ACTIVATION"
            raise unknown_name(key, activation, _ACTIVATIONS)
        make = _ACTIVATIONS[activation]
        self.cls_subnet = _separated(self.cls_subnet, make)
        self.bbox_subnet = _separated(self.bbox_subnet, make)
        self.cls_score = _separated(self.cls_score, make)
        self.bbox_pred = _separated(self.bbox_pred, make)
        for outputs in (self.cls_score, self.bbox_pred):
            for layer in outputs.modules():
                if isinstance(layer, DepthwiseSeparableConv2d):
                    nn.init.normal_(layer.pointwise.weight, std=0.01)


def _separated(module: nn.Module, activation: type[nn.Module]) -> nn.Module:
    """The same layers with separable convolutions, of the same biases, and another activation."""
    if isinstance(module, nn.Conv2d):
        conv = DepthwiseSeparableConv2d(module.in_channels, module.out_channels)
        nn.init.kaiming_normal_(conv.depthwise.weight, nonlinearity="linear")
        nn.init.kaiming_normal_(conv.pointwise.weight, nonlinearity="relu")
        conv.pointwise.bias = module.bias
        return conv
    if isinstance(module, nn.ReLU):
        return activation()
    for name, child in module.named_children():
        setattr(module, name, _separated(child, activation))
    return module
