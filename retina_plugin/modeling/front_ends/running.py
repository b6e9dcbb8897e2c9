"""The step from the normalised batch to what the backbone sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from detectron2.structures import ImageList, Instances
from torch.nn import functional as F

from retina_plugin.modeling.contracts import FrontEnd, NetworkInput


def run_front_end(
    front_end: FrontEnd | None,
    images: ImageList,
    instances: Sequence[Instances] | None,
    *,
    size_divisibility: int,
) -> NetworkInput:
    """What the front-end makes of a batch, checked and padded; the batch itself if there is none.

    Args:
        front_end: of the detector, or None.
        images, instances: see :class:`~retina_plugin.modeling.contracts.FrontEnd`.
        size_divisibility: of the backbone: height and width become multiples of it, by padding
            with 0 to the right and below, as Detectron2 pads a batch.

    Raises:
        TypeError: it returned something else than a ``NetworkInput``.
        ValueError: another number of images, or of channels than its ``out_channels``.
    """
    if front_end is None:
        return NetworkInput(images)
    given = front_end(images, instances)
    name = type(front_end).__name__
    if not isinstance(given, NetworkInput):
        raise TypeError(f"{name} must return a NetworkInput, got {type(given).__name__}")
    count, channels = given.images.tensor.shape[:2]
    if (count, channels) != (len(images), front_end.out_channels):
        raise ValueError(
            f"{name} was given {len(images)} images and has out_channels {front_end.out_channels}, "
            f"but returned {count} images of {channels} channels: correct the one or the other"
        )
    return replace(given, images=_padded(given.images, max(size_divisibility, 1)))


def _padded(images: ImageList, multiple: int) -> ImageList:
    height, width = images.tensor.shape[-2:]
    missing = -height % multiple, -width % multiple
    if not torch.jit.is_tracing() and not any(missing):  # while tracing they are tensors
        return images
    return ImageList(F.pad(images.tensor, (0, missing[1], 0, missing[0])), images.image_sizes)
