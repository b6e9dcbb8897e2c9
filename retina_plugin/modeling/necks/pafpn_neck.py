"""The feature pyramid with a second, bottom-up path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from detectron2.modeling import Backbone
from torch import Tensor, nn

from retina_plugin.modeling.necks.pyramid_neck import PyramidNeck, conv, up_to
from retina_plugin.modeling.necks.stages import TOPS
from retina_plugin.registry import NECKS


class MakeLayer(Protocol):
    """Makes one of the neck's 3x3 layers."""

    def __call__(self, channels: int, *, stride: int, norm: str) -> nn.Module:
        """``(N, C, H, W) -> (N, C, H / stride, W / stride)``, rounded up."""


def conv3x3(channels: int, *, stride: int, norm: str) -> nn.Module:
    """A convolution and its norm, no activation: as in Detectron2's FPN and in mmdetection."""
    return conv(channels, channels, 3, stride=stride, norm=norm)


@NECKS.register(defaults={"TOP": "C5"}, choices={"TOP": TOPS})
class PAFPNNeck(PyramidNeck):
    """An FPN, and a path back from its finest level to the coarsest.

    ``P_i = f_i(T_i)`` with ``T_i = lateral_i(C_i) + up(T_{i+1})`` as in an FPN; then ``N_3 = P_3``
    and ``N_i = g_i(P_i + down_i(N_{i-1}))``, down being a 3x3 convolution of stride 2, f and g 3x3
    convolutions. Outputs are the N. The FPN's convolutions are named as Detectron2's
    (``fpn_lateral3``, ``fpn_output3``), the path's ``pan_down4`` and ``pan_output4``.

    Source: Liu et al., Path Aggregation Network, 2018, section 3.1; mmdetection's ``PAFPN``. As in
    the latter, the paper's ReLU after each convolution is left out. As in the paper, ``down_i``
    follows ``g_{i-1}``; in mmdetection it gets the same map as ``g_{i-1}``. P6 and P7 are
    RetinaNet's; of ``P5`` means of ``N_5``.

    Args:
        layer: makes f, g and down.

    The other arguments are :class:`PyramidNeck`'s.
    """

    def __init__(
        self,
        *,
        bottom_up: Backbone,
        in_features: Sequence[str],
        out_channels: int,
        norm: str = "",
        layer: MakeLayer = conv3x3,
        **shared: Any,
    ) -> None:
        super().__init__(
            bottom_up=bottom_up,
            in_features=in_features,
            out_channels=out_channels,
            norm=norm,
            **shared,
        )
        for level in self.stage_levels:
            self.add_module(f"fpn_output{level}", layer(out_channels, stride=1, norm=norm))
        for level in self.stage_levels[1:]:
            self.add_module(f"pan_down{level}", layer(out_channels, stride=2, norm=norm))
            self.add_module(f"pan_output{level}", layer(out_channels, stride=1, norm=norm))

    def fuse(self, laterals: list[Tensor], c5: Tensor) -> list[Tensor]:
        """See the class and :meth:`PyramidNeck.fuse`."""
        merged = laterals[-1:]
        for lateral in reversed(laterals[:-1]):
            merged.insert(0, lateral + up_to(merged[0], lateral))
        outputs: list[Tensor] = []
        for level, map_ in zip(self.stage_levels, merged, strict=True):
            map_ = getattr(self, f"fpn_output{level}")(map_)
            if outputs:
                map_ = map_ + getattr(self, f"pan_down{level}")(outputs[-1])
                map_ = getattr(self, f"pan_output{level}")(map_)
            outputs.append(map_)
        return self.with_top(outputs, c5)
