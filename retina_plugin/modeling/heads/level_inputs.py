"""A head's first layers, where levels have different channels."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.layers import Conv2d, ShapeSpec
from fvcore.nn import weight_init
from torch import Tensor, nn


class LevelInputs(nn.Module):
    """A 1x1 convolution for each level that has other channels than the first; equal levels pass.

    Where all levels have the same channels it has no parameters.

    Source: Li et al., YOLOv6, 2022, whose head has such a stem at each level.

    Args:
        input_shape: of the levels, P3 first.
    """

    def __init__(self, input_shape: Sequence[ShapeSpec]) -> None:
        super().__init__()
        self.channels = [shape.channels for shape in input_shape]
        self.convs = nn.ModuleDict(
            {
                str(level): Conv2d(channels, self.channels[0], kernel_size=1)
                for level, channels in enumerate(self.channels)
                if channels != self.channels[0]
            }
        )
        for conv in self.convs.values():
            weight_init.c2_xavier_fill(conv)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """``(N, C_l, H, W)`` a level -> ``(N, C_0, H, W)``.

        Raises:
            ValueError: other levels or channels than the head was built for.
        """
        came = [feature.shape[1] for feature in features]
        if came != self.channels:
            raise ValueError(
                f"the head was built for levels of {self.channels} channels, and gets {came}: "
                "give it the backbone's output_shape() of the levels in head_in_features"
            )
        return [
            self.convs[str(level)](feature) if str(level) in self.convs else feature
            for level, feature in enumerate(features)
        ]
