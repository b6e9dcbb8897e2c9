"""What a detector's tensors say about the network that they are of, as config values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

BOTTOM_UP = "backbone.bottom_up."
STAGES = ("res2", "res3", "res4", "res5")
# blocks a stage, and whether they are bottlenecks -> depth, of detectron2.modeling's ResNets
DEPTHS = {
    ((2, 2, 2, 2), False): 18,
    ((3, 4, 6, 3), False): 34,
    ((3, 4, 6, 3), True): 50,
    ((3, 4, 23, 3), True): 101,
    ((3, 8, 36, 3), True): 152,
}
# The builder, where the stock one, which has this neck with P6 of C5, does not do
STOCK_NECK = "FPNNeck"
ANY_NECK = "build_retinanet_registered_fpn_backbone"


def network_settings(
    state: Mapping[str, Tensor], path: str, *, box_dim: int = 4, neck: str = STOCK_NECK
) -> dict[str, Any]:
    """Depth and width of the ResNet, channels and top of the pyramid, convolutions of the head.

    Args:
        state: by our names.
        path: of its file, for errors.
        box_dim: D.
        neck: the component that the pyramid is.

    Raises:
        ValueError: tensors are missing, or it is no ResNet that Detectron2 builds.
    """
    try:
        return {**_resnet(state, path), **_pyramid(state, neck), **_head(state, box_dim)}
    except KeyError as error:
        raise ValueError(
            f"{path}: the tensor that would be {error.args[0]} here is missing, so this is no "
            "whole RetinaNet on a ResNet with P3 to P7"
        ) from error


def _resnet(state: Mapping[str, Tensor], path: str) -> dict[str, Any]:
    blocks = tuple(_count(state, rf"{BOTTOM_UP}{stage}\.(\d+)\.") for stage in STAGES)
    bottleneck = f"{BOTTOM_UP}res2.0.conv3.weight" in state
    depth = DEPTHS.get((blocks, bottleneck))
    if depth is None:
        raise ValueError(
            f"{path}: a backbone with {', '.join(map(str, blocks))} "
            f"{'bottlenecks' if bottleneck else 'basic blocks'} in its stages is no ResNet of "
            f"depth {', '.join(map(str, DEPTHS.values()))}, the ones that can be converted"
        )
    middle = state[f"{BOTTOM_UP}res2.0.conv2.weight"]
    groups = middle.shape[0] // middle.shape[1]
    last = state[f"{BOTTOM_UP}res2.0.conv{3 if bottleneck else 2}.weight"]
    return {
        "MODEL.RESNETS.DEPTH": depth,
        "MODEL.RESNETS.NUM_GROUPS": groups,
        "MODEL.RESNETS.WIDTH_PER_GROUP": middle.shape[0] // groups,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": last.shape[0],
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
    }


def _pyramid(state: Mapping[str, Tensor], neck: str) -> dict[str, Any]:
    channels = state["backbone.fpn_lateral5.weight"].shape[0]
    settings = {"MODEL.FPN.OUT_CHANNELS": channels}
    if (neck, top_of(state)) != (STOCK_NECK, "C5"):
        settings |= {
            "MODEL.BACKBONE.NAME": ANY_NECK,
            "MODEL.NECK.NAME": neck,
            f"MODEL.NECK.{neck}.TOP": top_of(state),
        }
    return settings


def top_of(state: Mapping[str, Tensor]) -> str:
    """What P6 is made of, ``C5`` or ``P5``: by the channels of its convolution."""
    channels = state["backbone.fpn_lateral5.weight"].shape[0]
    return "P5" if state["backbone.top_block.p6.weight"].shape[1] == channels else "C5"


def _head(state: Mapping[str, Tensor], box_dim: int) -> dict[str, Any]:
    anchors = num_anchors(state, box_dim)
    return {
        "MODEL.RETINANET.NUM_CLASSES": state["head.cls_score.bias"].shape[0] // anchors,
        "MODEL.RETINANET.NUM_CONVS": num_convs(state),
        "MODEL.RETINANET.NORM": "GN" if has_norms(state) else "",
    }


def num_anchors(state: Mapping[str, Tensor], box_dim: int = 4) -> int:
    """A, by the channels of the box output."""
    return state["head.bbox_pred.bias"].shape[0] // box_dim


def num_convs(state: Mapping[str, Tensor]) -> int:
    """Convolutions of a tower."""
    return sum(
        name.startswith("head.cls_subnet.") and tensor.dim() == 4 for name, tensor in state.items()
    )


def has_norms(state: Mapping[str, Tensor]) -> bool:
    """Whether the towers have norms."""
    return any(
        name.startswith("head.cls_subnet.") and name.endswith(".weight") and tensor.dim() == 1
        for name, tensor in state.items()
    )


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return len({match[1] for name in state if (match := re.match(pattern, name))})
