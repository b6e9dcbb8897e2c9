"""MMDetection's RetinaNet, ATSS and GFL as ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from retina_plugin.checkpoint.anchor_order import ratios_first, reorder
from retina_plugin.checkpoint.conversion import Conversion, unknown_tensors
from retina_plugin.checkpoint.mmdetection_settings import MMDetectionSettings, settings_of
from retina_plugin.checkpoint.network_settings import network_settings, top_of
from retina_plugin.checkpoint.report import COUNTER
from retina_plugin.checkpoint.resnet_names import resnet_to_detectron2

# By a name that only that head has
HEADS = {
    "bbox_head.retina_cls.": "RetinaNet",
    "bbox_head.atss_cls.": "ATSS",
    "bbox_head.gfl_cls.": "GFL",
}
FIRST_LEVEL = 3
SIDES = 4  # of a box; GFL predicts a distribution of each
_OUTPUTS = {"cls": "cls_score", "reg": "bbox_pred"}
_TOWERS = {"cls": "cls_subnet", "reg": "bbox_subnet"}


def from_mmdetection(
    given: Mapping[str, Tensor], path: str, content: Mapping[str, Any]
) -> Conversion:
    """A state dict of MMDetection 2 or 3 for our detector.

    Names change. RetinaNet's output channels go from MMDetection's order of anchors (ratio by
    ratio) to Detectron2's (size by size); ATSS and GFL have one anchor a cell. The factors of the
    levels' boxes become ``level_scales``, centerness becomes ``QualityHead``'s quality; GFL's
    distributions stand in the order that ``IntegralBoxCoder`` reads. Classes keep their order,
    which for COCO is Detectron2's.

    What the tensors do not tell (channel order and statistics of pixels, strides, anchors) is read
    from the config in the file's ``meta``, or is taken to be as in MMDetection's own configs.

    Source: ``mmdet.models.dense_heads`` ``RetinaHead``, ``ATSSHead``, ``GFLHead``;
    ``mmdet.models.necks.FPN``; MMDetection 3.3.

    Args:
        given: the tensors.
        path: of their file, for errors.
        content: of that file, for its ``meta``.

    Raises:
        ValueError: another head, or tensors that a RetinaNet on a ResNet has not; a pyramid or
            anchors that ours cannot have.
    """
    head = next((HEADS[key] for key in HEADS if any(n.startswith(key) for n in given)), None)
    if head is None:
        names = [name for name in given if name.startswith("bbox_head.")] or list(given)
        raise unknown_tensors(path, "MMDetection's RetinaNet, ATSS or GFL", names)
    source = settings_of(content, head)
    state, dropped = _renamed(given, path, head)
    settings = network_settings(
        state,
        path,
        box_dim=_box_dim(state, head),
        neck="FPNNeck" if source.relu_before_p7 else "LinearTopFPNNeck",
    )
    _check_levels(state, source, path)
    if head == "RetinaNet":
        _reorder_anchors(state, source, path)
    classes = settings["MODEL.RETINANET.NUM_CLASSES"]
    bases = ["model/retinanet_R_50_FPN.yaml"]
    bases += ["datasets/coco_2017.yaml"] if classes == 80 else []
    bases += {"ATSS": ["recipes/atss.yaml"], "GFL": ["recipes/gfl.yaml"]}.get(head, [])
    return Conversion(
        state=state,
        kind=f"MMDetection's {head}",
        bases=bases,
        settings={**settings, **_common_settings(source), **_own_settings(state, source, head)},
        notes=_notes(source, head),
        dropped=dropped,
    )


def _renamed(
    given: Mapping[str, Tensor], path: str, head: str
) -> tuple[dict[str, Tensor], list[str]]:
    step = 3 if "bbox_head.cls_convs.0.gn.weight" in given else 2
    state, scales, dropped, unknown = {}, {}, [], []
    for name, tensor in given.items():
        own = _own_name(name, step)
        if name.endswith(COUNTER) or name == "bbox_head.integral.project":
            dropped.append(name)
        elif match := re.fullmatch(r"bbox_head\.scales\.(\d+)\.scale", name):
            scales[int(match[1])] = tensor
        elif own is None:
            unknown.append(name)
        else:
            state[own] = tensor
    if unknown:
        raise unknown_tensors(path, f"MMDetection's {head}", unknown)
    if scales:
        state["head.level_scales"] = torch.stack([scales[i].reshape(()) for i in sorted(scales)])
    for name, weight in list(state.items()):  # before a norm MMDetection's have no biases
        if re.fullmatch(r"head\.\w+_subnet\.\d+\.weight", name) and weight.dim() == 4:
            state.setdefault(name.replace("weight", "bias"), weight.new_zeros(len(weight)))
    return state, dropped


def _own_name(name: str, step: int) -> str | None:
    """``step``: modules of a tower from a convolution to the next."""
    if name.startswith("backbone."):
        resnet = name.removeprefix("backbone.")
        own = resnet_to_detectron2(resnet)
        return None if own == resnet else f"backbone.bottom_up.{own}"
    if match := re.fullmatch(r"neck\.lateral_convs\.([012])\.conv\.(\w+)", name):
        return f"backbone.fpn_lateral{int(match[1]) + FIRST_LEVEL}.{match[2]}"
    if match := re.fullmatch(r"neck\.fpn_convs\.([0-4])\.conv\.(\w+)", name):
        level = int(match[1]) + FIRST_LEVEL
        layer = f"fpn_output{level}" if level <= 5 else f"top_block.p{level}"
        return f"backbone.{layer}.{match[2]}"
    if match := re.fullmatch(r"bbox_head\.(cls|reg)_convs\.(\d+)\.(conv|gn)\.(\w+)", name):
        task, index, part, leaf = match.groups()
        return f"head.{_TOWERS[task]}.{int(index) * step + (part == 'gn')}.{leaf}"
    if match := re.fullmatch(r"bbox_head\.(?:retina|atss|gfl)_(cls|reg)\.(\w+)", name):
        return f"head.{_OUTPUTS[match[1]]}.{match[2]}"
    if match := re.fullmatch(r"bbox_head\.atss_centerness\.(\w+)", name):
        return f"head.quality.{match[1]}"
    return None


def _box_dim(state: Mapping[str, Tensor], head: str) -> int:
    """D: GFL has one anchor, and of each side a distribution."""
    bias = state.get("head.bbox_pred.bias")
    return len(bias) if head == "GFL" and bias is not None else 4


def _check_levels(state: Mapping[str, Tensor], source: MMDetectionSettings, path: str) -> None:
    if source.extra_convs == "on_lateral":
        raise ValueError(
            f"{path}: its P6 is made of P5's lateral map (add_extra_convs='on_lateral'), which "
            "no neck here does"
        )
    if source.strides != [8, 16, 32, 64, 128]:
        raise ValueError(f"{path}: its levels have strides {source.strides}, not those of P3 to P7")
    if source.known and (source.extra_convs == "on_input") != (top_of(state) == "C5"):
        raise ValueError(
            f"{path}: its config says that P6 is made {source.extra_convs}, but that convolution "
            f"has as many channels as {top_of(state)}"
        )


def _reorder_anchors(state: dict[str, Tensor], source: MMDetectionSettings, path: str) -> None:
    order = ratios_first(len(source.ratios), len(source.scales))
    anchors = len(state["head.bbox_pred.bias"]) // 4
    if anchors != len(order):
        said = "its config says" if source.known else "without a config in it are taken"
        raise ValueError(
            f"{path}: its head has {anchors} anchors a cell, but {said} {len(source.scales)} sizes "
            f"in {len(source.ratios)} ratios"
        )
    for output in ("cls_score", "bbox_pred"):
        for leaf in ("weight", "bias"):
            name = f"head.{output}.{leaf}"
            state[name] = reorder(state[name], order)


def _common_settings(source: MMDetectionSettings) -> dict[str, Any]:
    return {
        "MODEL.PIXEL_MEAN": source.mean,
        "MODEL.PIXEL_STD": source.std,
        "INPUT.FORMAT": source.order,
        "MODEL.RESNETS.STRIDE_IN_1X1": source.stride_in_1x1,
        "MODEL.ANCHOR_GENERATOR.NAME": "DefaultAnchorGenerator",
        "MODEL.ANCHOR_GENERATOR.SIZES": [
            [float(stride * scale) for scale in source.scales] for stride in source.strides
        ],
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [source.ratios],
        "MODEL.RETINANET.SCORE_THRESH_TEST": source.score_thresh,
        "MODEL.RETINANET.NMS_THRESH_TEST": source.nms_thresh,
        "MODEL.RETINANET.TOPK_CANDIDATES_TEST": source.topk,
        "TEST.DETECTIONS_PER_IMAGE": source.max_detections,
    }


def _own_settings(
    state: Mapping[str, Tensor], source: MMDetectionSettings, head: str
) -> dict[str, Any]:
    """What only one of the heads has."""
    if head == "GFL":
        coder = "MODEL.RETINANET.BOX_CODER.IntegralBoxCoder"
        return {
            f"{coder}.REG_MAX": len(state["head.bbox_pred.bias"]) // SIDES - 1,
            f"{coder}.UNIT": 1 / source.scales[0],  # a stride, in anchors
        }
    weights = [1 / std for std in source.target_stds]
    settings: dict[str, Any] = {"MODEL.RETINANET.BBOX_REG_WEIGHTS": weights}
    if head == "ATSS":
        settings["MODEL.RETINANET.HEAD.QualityHead.POWERS"] = [1.0, 1.0]
    return settings


def _notes(source: MMDetectionSettings, head: str) -> list[str]:
    where = (
        "its config says" if source.known else "no config in the file: taken as in MMDetection's"
    )
    stride = "first 1x1" if source.stride_in_1x1 else "3x3"
    notes = [
        f"{where}: {source.order} images, mean {source.mean}, std {source.std}, stride in the "
        f"{stride} convolution, P6 {source.extra_convs}, "
        f"P7 {'after a ReLU' if source.relu_before_p7 else 'without a ReLU (LinearTopFPNNeck)'}"
    ]
    if head == "ATSS":
        notes.append(
            "scores are class times centerness, as there; MMDetection compares the class alone "
            "with the threshold, here the product is compared: lower SCORE_THRESH_TEST to keep all"
        )
    return notes
