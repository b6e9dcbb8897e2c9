"""How a detector suppresses, for what puts several of its answers together."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn


class Suppression(NamedTuple):
    """IoU above which a box drops another, how many an image may have, and across classes."""

    nms_thresh: float
    max_detections: int
    class_agnostic: bool


def own_suppression(
    detector: nn.Module,
    asked_by: str,
    *,
    nms_thresh: float | None = None,
    max_detections: int | None = None,
    class_agnostic: bool | None = None,
) -> Suppression:
    """What is given, the rest as the detector has it.

    Args:
        detector: one of ours, Detectron2's RetinaNet, or a wrapper with these names of its own.
        asked_by: the class that needs it, for the error.
        nms_thresh, max_detections, class_agnostic: None for the detector's own.

    Raises:
        ValueError: the detector does not say.
    """
    if nms_thresh is None:
        nms_thresh = _own(detector, "nms_thresh", "test_nms_thresh", asked_by)
    if max_detections is None:
        max_detections = _own(detector, "max_detections", "max_detections_per_image", asked_by)
    if class_agnostic is None:
        holder = getattr(detector, "post_processor", detector)
        class_agnostic = getattr(holder, "class_agnostic", False)
    return Suppression(nms_thresh, max_detections, class_agnostic)


def _own(detector: nn.Module, ours: str, stock: str, asked_by: str) -> Any:
    """A setting of the detector's suppression, by our name or by Detectron2's."""
    holders = (getattr(detector, "post_processor", None), detector)
    for holder, name in ((holders[0], ours), (holders[1], ours), (holders[1], stock)):
        if hasattr(holder, name):
            return getattr(holder, name)
    raise ValueError(
        f"{type(detector).__name__} has neither post_processor.{ours} nor {stock}: give {ours} to "
        f"{asked_by}"
    )
