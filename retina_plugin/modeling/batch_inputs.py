"""What the data loader hands over: checked, and moved to the model's device without a wait."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from retina_plugin.modeling.contracts import ignored_boxes, with_ignored


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor.to(device)`` that never waits for what a GPU still computes.

    A copy from ordinary memory would: from pinned memory it takes its turn.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def check_pixel_statistics(mean: Sequence[float], std: Sequence[float]) -> None:
    """Raise unless images can be normalised by them; one deviation may stand for all channels.

    Raises:
        ValueError: other lengths, or a deviation that is not above 0.
    """
    keys = "MODEL.PIXEL_MEAN and MODEL.PIXEL_STD (pixel_mean and pixel_std in a LazyConfig)"
    if len(std) not in (1, len(mean)):
        raise ValueError(
            f"{keys} must have a number for each channel of the images, got {len(mean)} and "
            f"{len(std)}"
        )
    if not all(x > 0 for x in std):
        raise ValueError(f"{keys}: every standard deviation must be above 0, got {list(std)}")


def check_channels(batched_inputs: Sequence[dict[str, Any]], channels: int) -> None:
    """Raise unless the images have as many channels as the model, or one, which stands for all.

    Raises:
        ValueError: names the image, what was expected and what came.
    """
    for given in batched_inputs:
        came = len(given["image"])
        if came not in (1, channels):
            raise ValueError(
                f"{_name_of(given)} has {came} channels, but MODEL.PIXEL_MEAN (pixel_mean in a "
                f"LazyConfig) has {channels} numbers: give it and PIXEL_STD one a channel, or "
                "correct INPUT.FORMAT"
            )


def ground_truth_of(given: dict[str, Any], num_classes: int, device: torch.device) -> Instances:
    """The image's ground truth, on ``device``.

    ``ignored_boxes`` come along where the input has them, see ``INPUT.IGNORE_CROWD``, or the
    instances do.

    Raises:
        ValueError: there is none, or it has classes that the model has not.
    """
    _check(given, num_classes)
    instances: Instances = given["instances"]
    moved = Instances(instances.image_size)
    regions = (
        given["ignored_boxes"].tensor if "ignored_boxes" in given else ignored_boxes(instances)
    )
    for name, value in instances.get_fields().items():
        if isinstance(value, Boxes):
            value = Boxes(to_device(value.tensor, device))
        elif isinstance(value, Tensor):
            value = to_device(value, device)
        elif hasattr(value, "to"):  # masks, key points
            value = value.to(device)
        moved.set(name, value)
    return moved if regions is None else with_ignored(moved, to_device(regions, device))


def _check(given: dict[str, Any], num_classes: int) -> None:
    image = _name_of(given)
    if "instances" not in given:
        raise ValueError(
            f"{image} came without 'instances' in training: the data loader's mapper must add them "
            "(Detectron2's DatasetMapper does with is_train=True)"
        )
    if given["instances"].gt_classes.device.type != "cpu":
        return  # the question would wait for the GPU; what a loader gives is on the CPU
    classes = given["instances"].gt_classes.numpy()
    if ((classes < 0) | (classes >= num_classes)).any():
        raise ValueError(
            f"{image} has gt_classes from {classes.min()} to {classes.max()}, but the model has "
            f"{num_classes} classes (0 to {num_classes - 1}): correct MODEL.RETINANET.NUM_CLASSES "
            "(num_classes in a LazyConfig), or the data"
        )


def _name_of(given: dict[str, Any]) -> str:
    return f"image {given.get('file_name', '(no file name)')}"
