"""What every neck asks of a backbone's stages, and what it puts on top of its levels."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from detectron2.modeling.backbone.fpn import LastLevelP6P7

from retina_plugin.registry import unknown_name

KEY = "MODEL.FPN.IN_FEATURES"
TOPS = ("C5", "P5")


def stages_of(bottom_up: Backbone, in_features: Sequence[str]) -> list[ShapeSpec]:
    """Channels and stride of the stages that a neck is made of, high resolution first.

    Raises:
        UnknownNameError: the backbone has no such stage; lists those that it has.
        ValueError: no stages, or strides that are no powers of 2, each twice the one before.
    """
    shapes = bottom_up.output_shape()
    has = f"{type(bottom_up).__name__} has {_with_strides(shapes, shapes)}"
    if not in_features:
        raise ValueError(f"{KEY} is empty: name the stages that the neck is made of; {has}")
    for name in in_features:
        if name not in shapes:
            raise unknown_name(f"{KEY} ({has})", name, shapes)
    strides = [shapes[name].stride for name in in_features]
    wanted = [strides[0] << i for i in range(len(strides))]
    if strides != wanted or strides[0].bit_count() != 1:
        raise ValueError(
            f"{KEY} must name stages whose strides are powers of 2, each twice the one before; "
            f"got {_with_strides(in_features, shapes)}; {has}"
        )
    return [shapes[name] for name in in_features]


def _with_strides(names: Sequence[str], shapes: dict[str, ShapeSpec]) -> str:
    return ", ".join(f"{name} (stride {shapes[name].stride})" for name in names)


def level_of(stage: ShapeSpec) -> int:
    """3 of P3: the logarithm of its stride."""
    return stage.stride.bit_length() - 1


def top_block_of(
    stage: ShapeSpec, name: str, *, out_channels: int, top: str, key: str
) -> LastLevelP6P7:
    """Detectron2's ``LastLevelP6P7`` on the last stage, called ``name``, or on the last level.

    Args:
        stage: C5.
        name: of that output of the backbone.
        out_channels: of every level.
        top: ``C5`` (the paper of RetinaNet) or ``P5``.
        key: where ``top`` is set, for the error.

    Raises:
        UnknownNameError: ``top`` is neither; lists them.
    """
    if top not in TOPS:
        raise unknown_name(key, top, TOPS)
    if top == "C5":
        return LastLevelP6P7(stage.channels, out_channels, in_feature=name)
    return LastLevelP6P7(out_channels, out_channels, in_feature=f"p{level_of(stage)}")
