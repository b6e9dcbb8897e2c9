"""EfficientDet's neck: levels fused again and again, with weights that are learned."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from detectron2.layers import DepthwiseSeparableConv2d
from detectron2.modeling import Backbone
from torch import Tensor, nn
from torch.nn import functional as F

from retina_plugin.modeling.necks.pyramid_neck import PyramidNeck, up_to
from retina_plugin.modeling.necks.stages import TOPS
from retina_plugin.registry import NECKS

_EPSILON = 1e-4


class WeightedFusion(nn.Module):
    """``conv(silu(sum_i w_i x_i / (sum_i w_i + 1e-4)))``, the w being learned, 0 where negative.

    Source: Tan et al., EfficientDet, 2020, section 3.3, fast normalized fusion; the order of
    activation, separable convolution and norm is that of the authors' implementation.

    Args:
        num_inputs: maps of the same shape.
        channels: C.
        norm: after the convolution.
    """

    def __init__(self, *, num_inputs: int, channels: int, norm: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_inputs))
        self.conv = DepthwiseSeparableConv2d(channels, channels, norm2=norm)
        # Detectron2 takes the deviation of a dense convolution for the depthwise one
        nn.init.kaiming_normal_(self.conv.depthwise.weight, nonlinearity="linear")
        self.conv.depthwise.bias = None  # the norm would take it out again

    def forward(self, *maps: Tensor) -> Tensor:
        """``(N, C, H, W)`` each -> the same."""
        weights = self.weight.relu()
        weights = weights / (weights.sum() + _EPSILON)
        weighted = [weight * map_ for weight, map_ in zip(weights.unbind(), maps, strict=True)]
        return self.conv(F.silu(reduce(torch.add, weighted)))


class BiFPNLayer(nn.Module):
    """Once down and once up all levels, each node a :class:`WeightedFusion`.

    ``T_i = fuse(P_i, up(T_{i+1}))`` with ``T_7 = P_7``; then ``O_3 = T_3``,
    ``O_i = fuse(P_i, T_i, down(O_{i-1}))`` and ``O_7 = fuse(P_7, down(O_6))``, down being a maximum
    of 3x3 cells with stride 2.

    Args:
        num_levels: 2 or more.
        channels, norm: of the nodes.
    """

    def __init__(self, *, num_levels: int, channels: int, norm: str) -> None:
        super().__init__()
        shared = {"channels": channels, "norm": norm}
        self.top_down = nn.ModuleList(
            WeightedFusion(num_inputs=2, **shared) for _ in range(num_levels - 1)
        )
        self.bottom_up = nn.ModuleList(
            WeightedFusion(num_inputs=2 if i == num_levels - 1 else 3, **shared)
            for i in range(1, num_levels)
        )

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """``(N, C, H, W)`` each, high resolution first -> the same."""
        first, *middle, last = levels
        downward = [last]
        for fuse, level in zip(self.top_down, reversed([first, *middle]), strict=True):
            downward.append(fuse(level, up_to(downward[-1], level)))
        outputs = [downward.pop()]
        sources = [*zip(middle, reversed(downward[1:]), strict=True), (last,)]
        for fuse, maps in zip(self.bottom_up, sources, strict=True):
            down = F.max_pool2d(outputs[-1], kernel_size=3, stride=2, padding=1)
            outputs.append(fuse(*maps, down))
        return outputs


@NECKS.register(defaults={"TOP": "C5", "REPEATS": 3}, choices={"TOP": TOPS})
class BiFPNNeck(PyramidNeck):
    """Bidirectional paths over all levels, P6 and P7 included, several times.

    Source: Tan et al., EfficientDet, 2020, section 3. Other than there, P6 and P7 are RetinaNet's
    convolutions of C5 or of its lateral convolution (``P5``), and each stage has one lateral
    convolution, where EfficientDet's first layer has one for each use.

    Args:
        norm: of every convolution; EfficientDet's is a batch norm.
        repeats: number of bidirectional layers, :class:`BiFPNLayer`.

    The other arguments are :class:`PyramidNeck`'s.

    Raises:
        ValueError: no norm (each mean of maps is smaller than they are: after three layers a
            hundredth would be left), or no layer.
    """

    def __init__(
        self,
        *,
        bottom_up: Backbone,
        in_features: Sequence[str],
        out_channels: int,
        norm: str = "",
        repeats: int = 3,
        **shared: Any,
    ) -> None:
        if not norm:
            raise ValueError(
                "BiFPNNeck needs a norm, or its maps shrink from node to node: set MODEL.FPN.NORM "
                "to BN, SyncBN or GN"
            )
        if repeats < 1:
            raise ValueError(f"MODEL.NECK.BiFPNNeck.REPEATS must be 1 or more, got {repeats}")
        super().__init__(
            bottom_up=bottom_up,
            in_features=in_features,
            out_channels=out_channels,
            norm=norm,
            **shared,
        )
        self.layers = nn.Sequential(
            *(
                BiFPNLayer(num_levels=len(self._out_features), channels=out_channels, norm=norm)
                for _ in range(repeats)
            )
        )

    def fuse(self, laterals: list[Tensor], c5: Tensor) -> list[Tensor]:
        """See :meth:`PyramidNeck.fuse`."""
        return self.layers(self.with_top(laterals, c5))
