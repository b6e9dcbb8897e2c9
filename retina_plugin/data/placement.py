"""Where an image goes on a canvas, and with it its boxes and whatever else lies in its pixels.

Boxes are XYXY in pixels with continuous edges: pixel i spans [i, i + 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints, PolygonMasks
from torch import Tensor
from torch.nn import functional as F

from retina_plugin.data.tiling import Window

Size = tuple[int, int]  # height, width
MIN_SIDE = 1e-5  # pixels; as Detectron2's filter_empty_instances
ROUNDING = 1e-4  # a box at an image's edge may be cut by what single precision adds to it


@dataclass(frozen=True)
class Placement:
    """An image, resized, shifted and seen through a window of a canvas.

    Attributes:
        size: height and width of the image.
        resized: the same after it was resized.
        x, y: where its left upper corner goes, perhaps outside of the window.
        window: the rectangle of the canvas in which it shows.
        canvas: height and width.
    """

    size: Size
    resized: Size
    x: int
    y: int
    window: Window
    canvas: Size

    @property
    def shown(self) -> Window:
        """The pixels of the canvas that the image covers; may be empty."""
        x0, y0 = max(self.x, self.window.x0), max(self.y, self.window.y0)
        x1 = min(self.x + self.resized[1], self.window.x1)
        y1 = min(self.y + self.resized[0], self.window.y1)
        return Window(x0, y0, max(x0, x1), max(y0, y1))

    @property
    def region(self) -> tuple[Any, slice, slice]:
        """Index of these pixels into a ``(C, H, W)`` canvas."""
        x0, y0, x1, y1 = self.shown
        return ..., slice(y0, y1), slice(x0, x1)

    def pixels(self, image: Tensor) -> Tensor:
        """``(C, h, w)`` -> what goes there; bilinear with antialiasing, as PIL resizes."""
        return self._cut(_resize(image, self.resized))

    def boxes(self, boxes: Tensor) -> Tensor:
        """``(M, 4)`` of the image -> of the canvas, not cut."""
        scale, shift = self._numbers
        return boxes * boxes.new_tensor(scale * 2) + boxes.new_tensor(shift * 2)

    def masks(self, masks: BitMasks | PolygonMasks) -> BitMasks | PolygonMasks:
        """M masks, cut at the window."""
        if isinstance(masks, PolygonMasks):
            return PolygonMasks([self._polygons(polygons) for polygons in masks.polygons])
        canvas = masks.tensor.new_zeros(len(masks), *self.canvas)
        canvas[self.region] = self._cut(_resize(masks.tensor, self.resized))
        return BitMasks(canvas)

    def keypoints(self, keypoints: Keypoints) -> Keypoints:
        """M times K points; those outside the window become unlabelled, all 0."""
        scale, shift = self._numbers
        points = keypoints.tensor.clone()
        points[..., :2] = points[..., :2] * points.new_tensor(scale) + points.new_tensor(shift)
        low, high = points.new_tensor(self.shown[:2]), points.new_tensor(self.shown[2:])
        inside = ((points[..., :2] >= low) & (points[..., :2] <= high)).all(dim=-1)
        return Keypoints(points * (inside & (points[..., 2] > 0))[..., None])

    @property
    def _numbers(self) -> tuple[list[float], list[float]]:
        """Scale and shift in x and y."""
        scale = [self.resized[1] / self.size[1], self.resized[0] / self.size[0]]
        return scale, [self.x, self.y]

    def _cut(self, resized: Tensor) -> Tensor:
        x0, y0, x1, y1 = self.shown
        return resized[..., y0 - self.y : y1 - self.y, x0 - self.x : x1 - self.x]

    def _polygons(self, polygons: list[np.ndarray]) -> list[np.ndarray]:
        scale, shift = self._numbers
        moved = [polygon.reshape(-1, 2) * scale + shift for polygon in polygons]
        low, high = np.array(self.shown[:2]), np.array(self.shown[2:])
        if any((points < low).any() or (points > high).any() for points in moved):
            crop = T.CropTransform(*low, *(high - low))  # needs shapely, as Detectron2's crops do
            moved = [points + low for points in crop.apply_polygons(moved)]
        return [points.reshape(-1) for points in moved]


def random_placement(size: Size, window: Window, canvas: Size, *, scale: float = 1.0) -> Placement:
    """An image scaled and shifted by chance: along either axis all of it shows or it fills the
    window."""
    resized = tuple(max(1, round(side * scale)) for side in size)
    space = window.height - resized[0], window.width - resized[1]
    y, x = (np.random.randint(min(0, free), max(0, free) + 1) for free in space)
    return Placement(size, resized, window.x0 + x, window.y0 + y, window, canvas)


def place_boxes(boxes: Boxes, placement: Placement) -> Boxes:
    """What is left of the boxes of an image on the canvas."""
    cut = Boxes(_clip(placement.boxes(boxes.tensor), placement.shown))
    return cut[cut.nonempty(MIN_SIDE)]


def place_instances(
    instances: Instances, placement: Placement, *, min_visible: float = 0.0
) -> Instances:
    """The objects of an image on the canvas, without those of which too little is left.

    Boxes, masks and keypoints move with their pixels; every other field has one entry an object
    and is kept as it is.

    Args:
        instances: with ``gt_boxes``.
        placement: of their image.
        min_visible: least share of a box's area that must show; what has no area left goes always.

    Raises:
        ValueError: the boxes are not upright ones.
    """
    fields = dict(instances.get_fields())
    boxes = fields.get("gt_boxes")
    if type(boxes) is not Boxes:
        raise ValueError(
            "INPUT.MIX moves objects with upright boxes, Instances.gt_boxes of type Boxes, got "
            f"{type(boxes).__name__}: set its probabilities to 0 for this data"
        )
    moved = placement.boxes(boxes.tensor)
    cut = _clip(moved, placement.shown)
    fields["gt_boxes"] = Boxes(cut)
    for name, value in fields.items():
        if isinstance(value, BitMasks | PolygonMasks):
            fields[name] = placement.masks(value)
        elif isinstance(value, Keypoints):
            fields[name] = placement.keypoints(value)
    placed = Instances(placement.canvas, **fields)
    keep = Boxes(cut).area() >= min_visible * Boxes(moved).area() * (1 - ROUNDING)
    keep &= Boxes(cut).nonempty(MIN_SIDE)
    if placed.has("gt_masks"):
        keep &= placed.gt_masks.nonempty()
    return select(placed, keep)


def select(instances: Instances, keep: Tensor) -> Instances:
    """The objects where the ``(M,)`` mask is true; unlike ``instances[keep]`` also of lists."""
    result = Instances(instances.image_size)
    for name, value in instances.get_fields().items():
        if isinstance(value, list):
            value = [x for x, kept in zip(value, keep.tolist(), strict=True) if kept]
        else:
            value = value[keep]
        result.set(name, value)
    return result


def concatenate(parts: Sequence[Instances]) -> Instances:
    """``Instances.cat`` of parts on one canvas; a part without objects may lack fields.

    Raises:
        ValueError: parts with objects have different fields.
    """
    filled = [part for part in parts if len(part)] or [max(parts, key=_number_of_fields)]
    names = [set(part.get_fields()) for part in filled]
    odd = set.union(*names) - set.intersection(*names)
    if odd:
        raise ValueError(
            f"INPUT.MIX puts objects of several images into one, but some images' objects lack "
            f"{', '.join(sorted(odd))}: give all of them the same Instances fields"
        )
    return Instances.cat(filled)


def _number_of_fields(instances: Instances) -> int:
    return len(instances.get_fields())


def _clip(boxes: Tensor, window: Window) -> Tensor:
    low, high = boxes.new_tensor(window[:2]), boxes.new_tensor(window[2:])
    corners = boxes.view(-1, 2, 2).clamp(min=low, max=high)
    return corners.view(-1, 4)


def _resize(image: Tensor, size: Size) -> Tensor:
    """``(C, h, w)`` to another size; masks of bool by the nearest pixel."""
    if image.shape[-2:] == size:
        return image
    if not len(image):
        return image.new_zeros(0, *size)
    if image.dtype == torch.bool:
        return F.interpolate(image[None].to(torch.uint8), size, mode="nearest-exact")[0].bool()
    return F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
