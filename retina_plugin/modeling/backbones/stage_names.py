"""Which of a backbone's outputs ``MODEL.FPN.IN_FEATURES`` asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from detectron2.layers import ShapeSpec

KEY = "MODEL.FPN.IN_FEATURES"
_BY_STRIDE = re.compile(r"res(\d+)")


def check_stages(asked: Sequence[str], shapes: Mapping[str, ShapeSpec], name: str) -> None:
    """Refuse stages that a backbone has not.

    Raises:
        ValueError: lists the stages that it has, and their strides.
    """
    for stage in asked:
        if stage not in shapes:
            raise ValueError(f"{KEY} asks for '{stage}', but {name} gives {listed(shapes)}")
    if not asked:
        raise ValueError(
            f"{KEY} is empty: name the stages that the neck shall see, of {listed(shapes)}"
        )


def stages_by_stride(asked: Sequence[str], shapes: Mapping[str, ShapeSpec], name: str) -> list[str]:
    """The outputs that are asked for by their names, or by ``res<N>`` for the stride 2^N.

    Raises:
        ValueError: there is none; lists what there is, and the strides.
    """
    found = []
    for stage in asked:
        match = None if stage in shapes else _BY_STRIDE.fullmatch(stage)
        stride = 2 ** int(match[1]) if match else None
        of_stride = [n for n, shape in shapes.items() if stride and shape.stride == stride]
        found.append(of_stride[-1] if of_stride else stage)
    check_stages(found, shapes, name)
    return found


def listed(shapes: Mapping[str, ShapeSpec]) -> str:
    """``res3 (stride 8), res4 (stride 16)``."""
    names = [f"{name} (stride {shape.stride})" for name, shape in shapes.items()]
    return ", ".join(names) or "no map whose stride is a power of 2"
