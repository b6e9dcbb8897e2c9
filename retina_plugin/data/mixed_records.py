"""Records of a mapper, several of which become one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.structures import Boxes
from torch import Tensor

from retina_plugin.data.placement import Placement, Size, concatenate, place_boxes, place_instances

GREY = 128  # where no image of bytes is: FixedSizeCrop's and, nearly, the mean pixel's
NOT_MOVED = ("sem_seg", "proposals")

Record = dict[str, Any]


def size_of(record: Record) -> Size:
    """Height and width of a mapped image.

    Raises:
        ValueError: the record is none that can be mixed.
    """
    found = [key for key in NOT_MOVED if key in record]
    if found or "instances" not in record:
        what = f"has {', '.join(found)}" if found else "has no 'instances'"
        raise ValueError(
            f"INPUT.MIX takes images with objects alone, but {record.get('file_name')} {what}: set "
            "its probabilities to 0 for this data"
        )
    return tuple(record["image"].shape[-2:])


def blank(image: Tensor, size: Size) -> Tensor:
    """A grey image like a ``(C, H, W)`` one, of another size.

    Nobody knows what is grey in an image of floats, of bands: the mean of each of its channels.
    """
    if image.is_floating_point():
        return image.mean(dim=(1, 2), keepdim=True).expand(-1, *size).clone()
    return torch.full((len(image), *size), GREY, dtype=image.dtype)


def combine(
    records: Sequence[Record],
    placements: Sequence[Placement],
    image: Tensor,
    *,
    min_visible: float,
) -> Record:
    """The first record with ``image`` and the objects of all, each placed with its image.

    ``Boxes`` beside ``instances``, that is regions to ignore, are moved likewise, but kept whatever
    is left of them. ``height`` and ``width`` become the image's: it is no picture of the file.
    """
    height, width = image.shape[-2:]
    result = {**records[0], "image": image, "height": height, "width": width}
    placed = list(zip(records, placements, strict=True))
    parts = [place_instances(x["instances"], at, min_visible=min_visible) for x, at in placed]
    result["instances"] = concatenate(parts)
    # a record may lack them
    for key in {key: None for x in records for key, value in x.items() if isinstance(value, Boxes)}:
        result[key] = Boxes.cat([place_boxes(x[key], at) for x, at in placed if key in x])
    return result
