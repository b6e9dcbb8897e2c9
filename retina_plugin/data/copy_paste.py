"""Objects of one image pasted into another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.structures import BitMasks, Instances, PolygonMasks
from detectron2.structures.masks import polygons_to_bitmask
from torch import Tensor
from torch.nn import functional as F

from retina_plugin.data.mixed_records import size_of
from retina_plugin.data.placement import Placement, Size, concatenate, place_instances, select
from retina_plugin.data.tiling import Window


def copy_paste(
    records: Sequence[dict[str, Any]], *, share: float = 0.5, min_visible: float = 0.0
) -> dict[str, Any]:
    """Objects of the second image at random places of the first.

    Where objects have masks, these pixels are pasted, else those of their boxes. An object that is
    larger than the first image is not pasted. Objects of which too little shows are dropped; of the
    others bit masks lose what is covered, boxes and polygons stay as they were.

    Args:
        records: two, as a mapper gives them; not changed. The first one's other keys are kept.
        share: chance of each object to be pasted.
        min_visible: least share of an object that must not be covered; one that is wholly covered
            is always dropped.

    Source: Ghiasi et al., Simple Copy-Paste, 2021, which pastes by masks, at the same place after
    large-scale jitter, and trims boxes to what is seen.
    """
    first, second = records
    canvas, size = size_of(first), size_of(second)
    objects = second["instances"]
    image = first["image"].clone()
    owner = torch.zeros(canvas, dtype=torch.int64)  # which pasted object shows; 0 none
    pasted: list[Instances] = []
    areas = [1]
    for index in np.flatnonzero(np.random.rand(len(objects)) < share):
        one = select(objects, torch.arange(len(objects)) == int(index))
        source = _pixels_of(one, size)
        free = canvas[0] - source.height, canvas[1] - source.width
        stencil = _stencil(one, source)
        if min(free) < 0 or not stencil.any():
            continue
        y, x = (np.random.randint(space + 1) for space in free)
        target = Window(x, y, x + source.width, y + source.height)
        _view(image, target)[:, stencil] = _view(second["image"], source)[:, stencil]
        _view(owner, target)[stencil] = len(areas)
        areas.append(int(stencil.sum()))
        whole = Window(0, 0, canvas[1], canvas[0])
        placement = Placement(size, size, x - source.x0, y - source.y0, whole, canvas)
        pasted.append(place_instances(one, placement))
    shown = owner.flatten().bincount(minlength=len(areas)) / torch.tensor(areas)
    parts = [_uncovered(first["instances"], owner == 0, min_visible)]
    for number, part in enumerate(pasted, start=1):
        if shown[number] > 0 and shown[number] >= min_visible:
            parts.append(_without_covered(part, owner == number))
    return {**first, "image": image, "instances": concatenate(parts)}


def _pixels_of(one: Instances, size: Size) -> Window:
    """The pixels of a single object's box."""
    (box,) = one.gt_boxes.tensor
    low = box[:2].floor().clamp(min=0).int().tolist()
    high = torch.minimum(box[2:].ceil(), box.new_tensor(size[::-1])).int().tolist()
    return Window(*low, *high)


def _stencil(one: Instances, window: Window) -> Tensor:
    """``(h, w)`` bool: which pixels of the window are a single object's."""
    masks = one.get("gt_masks") if one.has("gt_masks") else None
    if isinstance(masks, BitMasks):
        return _view(masks.tensor[0], window)
    if isinstance(masks, PolygonMasks):
        corner = np.array(window[:2])
        polygons = [(p.reshape(-1, 2) - corner).reshape(-1) for p in masks.polygons[0]]
        return torch.from_numpy(polygons_to_bitmask(polygons, window.height, window.width))
    return torch.ones(window.height, window.width, dtype=torch.bool)


def _view(image: Tensor, window: Window) -> Tensor:
    return image[..., window.y0 : window.y1, window.x0 : window.x1]


def _uncovered(instances: Instances, is_open: Tensor, min_visible: float) -> Instances:
    """The objects of which enough shows where the ``(H, W)`` mask is true."""
    shown = _share_open(instances, is_open)
    return _without_covered(select(instances, (shown > 0) & (shown >= min_visible)), is_open)


def _without_covered(instances: Instances, is_open: Tensor) -> Instances:
    """Bit masks without what is covered."""
    if instances.has("gt_masks") and isinstance(instances.gt_masks, BitMasks):
        instances.gt_masks = BitMasks(instances.gt_masks.tensor & is_open)
    return instances


def _share_open(instances: Instances, is_open: Tensor) -> Tensor:
    """``(M,)``: of each mask's pixels, or else of each box's, how many are open."""
    if instances.has("gt_masks") and isinstance(instances.gt_masks, BitMasks):
        masks = instances.gt_masks.tensor
        return (masks & is_open).sum(dim=(1, 2)) / masks.sum(dim=(1, 2)).clamp(min=1)
    sums = F.pad(is_open.long().cumsum(0).cumsum(1), (1, 0, 1, 0))
    boxes = instances.gt_boxes.tensor
    (x0, y0), (x1, y1) = boxes[:, :2].floor().long().T, boxes[:, 2:].ceil().long().T
    counts = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
    return counts / ((x1 - x0) * (y1 - y0)).clamp(min=1)
