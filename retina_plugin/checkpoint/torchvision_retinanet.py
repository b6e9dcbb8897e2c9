"""torchvision's RetinaNets, versions 1 and 2, as ours and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from torch import Tensor

from retina_plugin.checkpoint.anchor_order import inverse, ratios_first, reorder
from retina_plugin.checkpoint.conversion import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Conversion,
    unknown_tensors,
)
from retina_plugin.checkpoint.network_settings import (
    has_norms,
    network_settings,
    num_anchors,
    num_convs,
    top_of,
)
from retina_plugin.checkpoint.report import COUNTER
from retina_plugin.checkpoint.torchvision_names import (
    OUTPUTS,
    of_version_2,
    own_name,
    torchvision_name,
)

KIND = "torchvision's RetinaNet"
SIZES = RATIOS = 3  # of its anchors, the same on every level
ORDER = ratios_first(RATIOS, SIZES)
COCO_CHANNELS = 91  # its COCO models': COCO's category ids, of which 80 are in use
# buffers of ours, and of Detectron2's older files
_NOT_OF_THE_NETWORK = ("normalizer.", "pixel_mean", "pixel_std", "anchor_generator.")
EPS = 1e-5  # of Detectron2's frozen norms


def from_torchvision(
    given: Mapping[str, Tensor], path: str, *, norm_eps: float = EPS, coco_classes: bool = False
) -> Conversion:
    """A state dict of ``retinanet_resnet50_fpn`` or ``_v2``, or of another depth, for our detector.

    Names change; the output convolutions' channels go from torchvision's order of anchors (ratio by
    ratio) to Detectron2's (size by size); boxes are encoded alike, with weights of 1. The towers of
    version 2 have no biases, ours get zeros.

    Source: ``torchvision.models.detection.retinanet``.

    Args:
        given: of torchvision's default nine anchors a cell.
        path: of its file, for errors.
        norm_eps: what torchvision adds to the variance of the backbone's norms: 0 for its published
            COCO weights of version 1. Ours add 1e-5; the difference goes into their weights.
        coco_classes: of the 91 outputs of its COCO models keep the 80 in use, as Detectron2 orders
            them.

    Raises:
        ValueError: it has other tensors, or lacks some; other anchors, or classes than asked for.
    """
    state, dropped, unknown = {}, [], []
    has_groups = any(name.startswith("head.classification_head.conv.0.1.") for name in given)
    for name, tensor in given.items():
        own = own_name(of_version_2(name), step=3 if has_groups else 2)
        if name.endswith(COUNTER):
            dropped.append(name)
        elif own is None:
            unknown.append(name)
        else:
            state[own] = tensor
    if unknown:
        raise unknown_tensors(path, KIND, unknown)
    settings = network_settings(state, path)
    _add_biases(state)
    _check_anchors(state, path)
    for name in ("head.cls_score", "head.bbox_pred"):
        for leaf in ("weight", "bias"):
            state[f"{name}.{leaf}"] = reorder(state[f"{name}.{leaf}"], ORDER)
    if norm_eps != EPS:
        _absorb_eps(state, norm_eps)
    if coco_classes:
        _keep_coco_classes(state, settings, path)
    version = 2 if has_groups else 1
    return Conversion(
        state=state,
        kind=f"{KIND}, version {version}",
        bases=_bases(version, settings),
        settings={
            **settings,
            "MODEL.PIXEL_MEAN": IMAGENET_MEAN,
            "MODEL.PIXEL_STD": IMAGENET_STD,
            "INPUT.FORMAT": "RGB",
            "TEST.DETECTIONS_PER_IMAGE": 300,
        },
        notes=_notes(version, settings, norm_eps, coco_classes),
        dropped=dropped,
    )


def to_torchvision(given: Mapping[str, Tensor], path: str) -> Conversion:
    """The way back of :func:`from_torchvision`: a state dict for a torchvision ``RetinaNet``.

    Args:
        given: our detector's tensors, of a ResNet with FPN and nine anchors a cell.
        path: of its file, for errors.

    Raises:
        ValueError: the detector has what torchvision's has not.
    """
    given = {name: x for name, x in given.items() if not name.startswith(_NOT_OF_THE_NETWORK)}
    given = _without_level_scales(given, path)
    norms = has_norms(given)
    state, unknown = {}, []
    for name, tensor in given.items():
        other = torchvision_name(name, step=3 if norms else 2)
        if other is None:
            unknown.append(name)
        else:
            state[other] = tensor
    if unknown:
        raise unknown_tensors(path, "a detector like torchvision's: FocalRetinaNetHead", unknown)
    settings = network_settings(given, path)
    _check_anchors(given, path)
    for name in OUTPUTS:
        for leaf in ("weight", "bias"):
            key = f"head.{name}.{leaf}"
            state[key] = reorder(state[key], inverse(ORDER))
    if norms:
        _drop_biases(state, path)
    for name in [name for name in state if name.endswith("running_var")]:
        counter = name.replace("running_var", COUNTER)
        state[counter] = torch.zeros((), dtype=torch.int64)  # BatchNorm asks for it
    depth, classes = settings["MODEL.RESNETS.DEPTH"], settings["MODEL.RETINANET.NUM_CLASSES"]
    return Conversion(
        state=state,
        kind=f"RetinaNet on a ResNet-{depth}",
        notes=[
            _who_takes_it(given, depth, classes),
            "torchvision strides in the 3x3 convolutions and takes RGB images with ImageNet's mean "
            "and deviation: the same only of a model with MODEL.RESNETS.STRIDE_IN_1X1 False, "
            "INPUT.FORMAT RGB and these PIXEL_MEAN and PIXEL_STD (Detectron2's defaults differ)",
            "torchvision rounds its anchors: boxes are the same only of a model with "
            "configs/_base_/anchors/torchvision.yaml; labels are the class indices, from 0",
        ],
    )


def _check_anchors(state: Mapping[str, Tensor], path: str) -> None:
    anchors = num_anchors(state)
    if anchors != len(ORDER):
        raise ValueError(
            f"{path}: its head has {anchors} anchors a cell. How torchvision orders them is known "
            f"of its default ones, {len(ORDER)}: three sizes in three aspect ratios"
        )


def _add_biases(state: dict[str, Tensor]) -> None:
    """Zeros for the towers' convolutions that have none."""
    for name, weight in list(state.items()):
        if re.fullmatch(r"head\.\w+_subnet\.\d+\.weight", name) and weight.dim() == 4:
            state.setdefault(name.replace("weight", "bias"), weight.new_zeros(len(weight)))


def _drop_biases(state: dict[str, Tensor], path: str) -> None:
    """Of the convolutions before norms, where torchvision has none: zeros, or an error."""
    for name in [n for n in state if re.fullmatch(r"head\.\w+\.conv\.\d+\.0\.bias", n)]:
        largest = state.pop(name).abs().max().item()
        if largest > 0:
            raise ValueError(
                f"{path}: the head's convolutions before its norms have biases, in what would be "
                f"{name} up to {largest:.2g}, and those of torchvision's version 2 have none: "
                "only a detector that came from there, or has no MODEL.RETINANET.NORM, can go back"
            )


def _without_level_scales(given: Mapping[str, Tensor], path: str) -> dict[str, Tensor]:
    scales = given.get("head.level_scales")
    if scales is not None and not bool((scales == 1).all()):
        raise ValueError(
            f"{path}: it has a factor for the boxes of each level (LEVEL_SCALES of its head), "
            "which torchvision's RetinaNet has not"
        )
    return {name: tensor for name, tensor in given.items() if name != "head.level_scales"}


def _absorb_eps(state: dict[str, Tensor], eps: float) -> None:
    """Make ``w / sqrt(v + 1e-5)`` what ``w / sqrt(v + eps)`` was, by the weight w."""
    for name in [name for name in state if name.endswith("running_var")]:
        variance = state[name].double()
        weight = name.replace("running_var", "weight")
        factor = ((variance + EPS) / (variance + eps)).sqrt()
        state[weight] = (state[weight] * factor).to(state[weight].dtype)


def _keep_coco_classes(state: dict[str, Tensor], settings: dict[str, Any], path: str) -> None:
    classes = settings["MODEL.RETINANET.NUM_CLASSES"]
    if classes != COCO_CHANNELS:
        raise ValueError(
            f"{path}: --coco-classes is for torchvision's COCO models, of {COCO_CHANNELS} outputs; "
            f"this one has {classes}"
        )
    used = sorted(category["id"] for category in COCO_CATEGORIES if category["isthing"])
    for leaf in ("weight", "bias"):
        key = f"head.cls_score.{leaf}"
        by_class = state[key].reshape(len(ORDER), classes, *state[key].shape[1:])
        state[key] = by_class[:, used].flatten(0, 1)
    settings["MODEL.RETINANET.NUM_CLASSES"] = len(used)


def _bases(version: int, settings: dict[str, Any]) -> list[str]:
    bases = ["model/retinanet_R_50_FPN.yaml", "anchors/torchvision.yaml"]
    if settings["MODEL.RETINANET.NUM_CLASSES"] == 80:
        bases.append("datasets/coco_2017.yaml")
    return [*bases, "recipes/tv2.yaml"] if version == 2 else bases


def _notes(
    version: int, settings: dict[str, Any], norm_eps: float, coco_classes: bool
) -> list[str]:
    notes = [
        "anchors: torchvision's are rounded (configs/_base_/anchors/torchvision.yaml); its P6 and "
        "P7 cells are image size // map size apart, ours 64 and 128 pixels: boxes are the same "
        "where the padded image's sides are multiples of 128",
    ]
    if settings["MODEL.RETINANET.NUM_CLASSES"] == COCO_CHANNELS:
        notes.append(
            "91 classes, COCO's category ids, 11 of them unused: --coco-classes keeps the 80 that "
            "Detectron2's COCO has, in its order"
        )
    if coco_classes:
        notes.append("80 of 91 classes kept, in the order of Detectron2's COCO")
    if version == 1 and norm_eps == EPS:
        notes.append(
            "the norms are taken to add 1e-5 to the variance; torchvision's published COCO weights "
            "of version 1 add 0: --norm-eps 0"
        )
    if norm_eps != EPS:
        notes.append(f"norms that add {norm_eps:g} to the variance, made such that add 1e-5")
    return notes


def _who_takes_it(state: Mapping[str, Tensor], depth: int, classes: int) -> str:
    """How to build the torchvision model for a converted state dict."""
    version_1 = top_of(state) == "P5" and not has_norms(state)
    version_2 = top_of(state) == "C5" and has_norms(state)
    if depth == 50 and num_convs(state) == 4 and (version_1 or version_2):
        name = f"retinanet_resnet50_fpn{'_v2' if version_2 else ''}"
        return f"load it into torchvision.models.detection.{name}(num_classes={classes})"
    return (
        "neither of torchvision's builders makes such a network: build "
        f"torchvision.models.detection.RetinaNet of a resnet{depth} with FPN, LastLevelP6P7 of "
        f"{top_of(state)} and a RetinaNetHead for {classes} classes yourself"
    )
