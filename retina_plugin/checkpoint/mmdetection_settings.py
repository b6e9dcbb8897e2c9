"""The settings of a model of MMDetection, as far as its file tells them."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retina_plugin.checkpoint.conversion import IMAGENET_MEAN, IMAGENET_STD

CONFIG_KEYS = ("cfg", "config")  # of ``meta``: MMDetection 3's and 2's


@dataclass(frozen=True)
class MMDetectionSettings:
    """What a file's tensors do not tell.

    Attributes:
        known: whether the file said so; else all are as in MMDetection's config of a ResNet-50.
        mean, std: of the channels, in ``order``.
        order: ``RGB`` or ``BGR``.
        stride_in_1x1: of the ResNet's bottlenecks, ``style='caffe'``.
        extra_convs: what P6 is made of, ``on_input``, ``on_output`` or ``on_lateral``.
        relu_before_p7: between P6 and P7.
        strides: of the levels.
        scales: sizes of the anchors, in strides.
        ratios: height / width of the anchors.
        target_stds: what the box deltas are divided by.
        score_thresh, nms_thresh, topk, max_detections: of inference.
    """

    known: bool
    mean: list[float]
    std: list[float]
    order: str
    stride_in_1x1: bool
    extra_convs: str
    relu_before_p7: bool
    strides: list[int]
    scales: list[float]
    ratios: list[float]
    target_stds: list[float]
    score_thresh: float
    nms_thresh: float
    topk: int
    max_detections: int


# By the head: what MMDetection's own configs of retinanet, atss and gfl have
_ONE_ANCHOR = {"octave_base_scale": 8, "scales_per_octave": 1, "ratios": [1.0]}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "RetinaNet": {
        "anchors": {
            "octave_base_scale": 4,
            "scales_per_octave": 3,
            "ratios": [0.5, 1.0, 2.0],
        },
        "extra_convs": "on_input",
        "stds": [1.0, 1.0, 1.0, 1.0],
        "nms": 0.5,
    },
    "ATSS": {
        "anchors": _ONE_ANCHOR,
        "extra_convs": "on_output",
        "stds": [0.1, 0.1, 0.2, 0.2],
        "nms": 0.6,
    },
    "GFL": {
        "anchors": _ONE_ANCHOR,
        "extra_convs": "on_output",
        "stds": [1.0, 1.0, 1.0, 1.0],  # unused: its boxes are distances
        "nms": 0.6,
    },
}


def settings_of(content: Mapping[str, Any], head: str) -> MMDetectionSettings:
    """What the config text in a file's ``meta`` says; nothing of it is run.

    Args:
        content: of the file.
        head: ``RetinaNet``, ``ATSS`` or ``GFL``, whose defaults fill what is not said.
    """
    config = _config_in(content)
    model = _node(config, "model")
    pixels = {**_node(config, "img_norm_cfg"), **_node(model, "data_preprocessor")}
    bbox_head, neck, test = (_node(model, k) for k in ("bbox_head", "neck", "test_cfg"))
    test = test or _node(config, "test_cfg")
    default = _DEFAULTS[head]
    anchors = _node(bbox_head, "anchor_generator") or default["anchors"]
    is_rgb = pixels.get("bgr_to_rgb", pixels.get("to_rgb", True))
    extra = neck.get("add_extra_convs", default["extra_convs"])
    return MMDetectionSettings(
        known=bool(model),
        mean=list(pixels.get("mean", IMAGENET_MEAN)),
        std=list(pixels.get("std", IMAGENET_STD)),
        order="RGB" if is_rgb else "BGR",
        stride_in_1x1=_node(model, "backbone").get("style") == "caffe",
        extra_convs="on_input" if extra is True else extra,
        relu_before_p7=neck.get("relu_before_extra_convs", False),
        strides=list(anchors.get("strides", (8, 16, 32, 64, 128))),
        scales=_scales(anchors),
        ratios=list(anchors.get("ratios", (0.5, 1.0, 2.0))),
        target_stds=list(_node(bbox_head, "bbox_coder").get("target_stds", default["stds"])),
        score_thresh=test.get("score_thr", 0.05),
        nms_thresh=_node(test, "nms").get("iou_threshold", default["nms"]),
        topk=test.get("nms_pre", 1000),
        max_detections=test.get("max_per_img", 100),
    )


def _scales(anchors: Mapping[str, Any]) -> list[float]:
    if "scales" in anchors:
        return list(anchors["scales"])
    steps = anchors["scales_per_octave"]
    return [anchors["octave_base_scale"] * 2 ** (i / steps) for i in range(steps)]


def _node(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The dict at ``key``; empty where there is none."""
    value = config.get(key)
    return value if isinstance(value, dict) else {}


def _config_in(content: Mapping[str, Any]) -> dict[str, Any]:
    """The values that the config text in ``meta`` assigns; {} where there is none to be read."""
    meta = _node(content, "meta")
    text = next((meta[key] for key in CONFIG_KEYS if isinstance(meta.get(key), str)), "")
    try:
        statements = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    return {
        statement.targets[0].id: _value(statement.value)
        for statement in statements
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
    }


def _value(node: ast.expr) -> Any:
    """The value of a literal or of ``dict(key=literal)``; None of anything else."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {word.arg: _value(word.value) for word in node.keywords if word.arg}
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(element) for element in node.elts]
    if isinstance(node, ast.Dict):
        return {_value(k): _value(v) for k, v in zip(node.keys, node.values, strict=True) if k}
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError, MemoryError):
        return None
