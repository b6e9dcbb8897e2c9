"""Outputs named as those of Detectron2's ResNets, so that the configs of those fit."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.layers import ShapeSpec
from torch import Tensor

from retina_plugin.modeling.backbones.stage_names import check_stages

STAGES = {f"res{n}": ShapeSpec(stride=2**n) for n in (2, 3, 4, 5)}


def stage_numbers(out_features: Sequence[str], name: str) -> list[int]:
    """0 for ``res2`` to 3 for ``res5``, in ascending order.

    Raises:
        ValueError: another stage is asked for; lists these.
    """
    check_stages(out_features, STAGES, name)
    return [i for i, stage in enumerate(STAGES) if stage in out_features]


class NamedByStride:
    """Mixin of a Detectron2 backbone: its output of stride 2^N is called ``res<N>``."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """``(N, C, H, W)`` -> the named features."""
        names = dict(zip(super().output_shape(), self.output_shape(), strict=True))
        return {names[name]: value for name, value in super().forward(x).items()}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Of the parent, renamed."""
        shapes = super().output_shape().values()
        return {f"res{shape.stride.bit_length() - 1}": shape for shape in shapes}
