"""From a file of a detector to its tensors under other names, whatever it is of."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from retina_plugin.checkpoint.conversion import Conversion
from retina_plugin.checkpoint.mmdetection import from_mmdetection
from retina_plugin.checkpoint.reading import read_file, tensors_in
from retina_plugin.checkpoint.report import first
from retina_plugin.checkpoint.torchvision_retinanet import EPS, from_torchvision, to_torchvision

OWN = "retina_plugin"  # and Detectron2's RetinaNet, whose names are the same
TORCHVISION, MMDETECTION = "torchvision", "mmdetection"
# What a name begins with in no other layout
_MARKS = {
    TORCHVISION: "head.classification_head.",
    MMDETECTION: "bbox_head.",
    OWN: "head.cls_score.",
}


def layout_of(names: Iterable[str]) -> str | None:
    """Whose detector a file's names are of; None if of none that is known."""
    names = list(names)
    for layout, mark in _MARKS.items():
        if any(name.startswith(mark) for name in names):
            return layout
    return None


def _detected(names: Iterable[str], path: str) -> str:
    layout = layout_of(names)
    if layout is None:
        raise ValueError(
            f"{path}: holds no detector of {', '.join(_MARKS)}: its names are "
            f"{first(list(names))}. Weights of a backbone alone need not be converted: set "
            "MODEL.WEIGHTS to the file"
        )
    return layout


def convert_file(
    path: Path,
    *,
    source: str | None = None,
    target: str = OWN,
    norm_eps: float = EPS,
    coco_classes: bool = False,
) -> Conversion:
    """Read a detector's file and convert it.

    Args:
        path: of the file.
        source: whose layout it has; None finds out.
        target: whose layout it shall have.
        norm_eps, coco_classes: of :func:`from_torchvision`.

    Raises:
        ValueError: the file cannot be read or converted, or has that layout already.
    """
    name = str(path)
    content = read_file(name)
    tensors = tensors_in(content, name)
    source = source or _detected(tensors, name)
    if source != TORCHVISION and (norm_eps != EPS or coco_classes):
        raise ValueError(
            f"--norm-eps and --coco-classes are for torchvision's; {name} is {source}'s"
        )
    if (source, target) == (TORCHVISION, OWN):
        return from_torchvision(tensors, name, norm_eps=norm_eps, coco_classes=coco_classes)
    if (source, target) == (MMDETECTION, OWN):
        return from_mmdetection(tensors, name, content)
    if (source, target) == (OWN, TORCHVISION):
        return to_torchvision(tensors, name)
    hint = "there is nothing to do" if source == target else f"convert it to {OWN} first"
    raise ValueError(f"{name}: cannot convert from {source} to {target}: {hint}")
