"""Augmentations from yaml, which names Detectron2's transforms or these."""

from __future__ import annotations

import inspect
import logging
import math
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.data.detection_utils import build_augmentation
from fvcore.common.registry import Registry
from fvcore.transforms.transform import Transform

from retina_plugin.data.band_files import BANDS
from retina_plugin.registry import unknown_name

AUGMENTATIONS = Registry("augmentation")
# Bases, and what takes another augmentation as an object: nothing that numbers and names can build.
NOT_FROM_YAML = (T.Augmentation, T.AugmentationList, T.RandomApply)
FOR_COLOURS = (T.RandomSaturation, T.RandomLighting)  # of three channels
FOR_BYTES = (T.RandomExtent,)  # by PIL, which has no floats of several bands

logger = logging.getLogger(__name__)


def build_augmentations(cfg: CfgNode, is_train: bool = True) -> list[T.Augmentation]:
    """What the config lists, or Detectron2's own where that is empty or absent.

    The key is ``INPUT.AUGMENTATIONS`` in training, else ``INPUT.AUGMENTATIONS_TEST``.

    Raises:
        UnknownNameError: an unknown name or argument; lists the valid ones.
        ValueError: an entry is no mapping with ``NAME``, the transform refuses its arguments, or
            it cannot be applied to ``INPUT.FORMAT: bands``.
    """
    key = "AUGMENTATIONS" if is_train else "AUGMENTATIONS_TEST"
    crop = is_train and cfg.INPUT.CROP.ENABLED
    entries = cfg.INPUT.get(key) or []
    if entries:
        if crop:
            logger.warning(f"INPUT.CROP has no effect: INPUT.{key} lists all augmentations.")
        augmentations = [_build(entry, f"INPUT.{key}") for entry in entries]
        if cfg.INPUT.FORMAT == BANDS:
            _check_bands(augmentations, f"INPUT.{key}", len(cfg.MODEL.PIXEL_MEAN))
        return augmentations
    augmentations = build_augmentation(cfg, is_train)
    if crop:
        augmentations.insert(0, T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE))
    return augmentations


def _build(entry: Any, key: str) -> T.Augmentation:
    if not isinstance(entry, dict) or not isinstance(entry.get("NAME"), str):
        raise ValueError(
            f"{key}: an entry is a mapping such as {{NAME: RandomFlip, prob: 0.5}}, got {entry!r}"
        )
    arguments = {argument: value for argument, value in entry.items() if argument != "NAME"}
    name, factories = entry["NAME"], _factories()
    if name not in factories:
        raise unknown_name(key, name, factories)
    parameters = inspect.signature(factories[name]).parameters
    for argument in arguments:
        if argument not in parameters:
            raise unknown_name(f"{key}: argument of {name}", argument, parameters or ["(none)"])
    try:
        return factories[name](**arguments)
    except (TypeError, ValueError, AssertionError) as error:
        raise ValueError(f"{key}: {name} does not take {arguments}: {error}") from error


def _check_bands(augmentations: list[T.Augmentation], key: str, channels: int) -> None:
    """Refuse what would fail at the first image of bands, which is ``(H, W, C)`` float32."""
    for augmentation in augmentations:
        name, reason = type(augmentation).__name__, ""
        if isinstance(augmentation, FOR_COLOURS) and channels != 3:
            reason = f"takes colours, three channels, and MODEL.PIXEL_MEAN has {channels} numbers"
        elif isinstance(augmentation, FOR_BYTES):
            reason = f"takes images of bytes, not INPUT.FORMAT {BANDS}"
        if reason:
            raise ValueError(f"{key}: {name} {reason}: leave it out")


def _factories() -> dict[str, type[T.Augmentation]]:
    """All augmentations by name: Detectron2's classes and the registered ones."""
    stock = {
        name: value
        for name, value in vars(T).items()
        if inspect.isclass(value)
        and issubclass(value, T.Augmentation)
        and value not in NOT_FROM_YAML
    }
    return {**stock, **dict(AUGMENTATIONS)}


@AUGMENTATIONS.register()
class RandomQuarterTurn(T.Augmentation):
    """Turn by 0, 90, 180 or 270 degrees, exactly: no pixel is interpolated, boxes stay tight.

    For pictures with no upright side, such as those from above.
    """

    def get_transform(self, image: np.ndarray) -> Transform:
        """A turn of the ``(H, W, C)`` image."""
        return QuarterTurn(turns=np.random.randint(4), height=image.shape[0], width=image.shape[1])


class QuarterTurn(Transform):
    """Counter-clockwise quarter turns of an image of known size."""

    def __init__(self, *, turns: int, height: int, width: int) -> None:
        super().__init__()
        self.turns = turns % 4
        self.height = height
        self.width = width

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """``(H, W[, C])`` -> the turned image."""
        return np.ascontiguousarray(np.rot90(img, self.turns))

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """``(M, 2)`` x, y in pixels, edges at 0 and W."""
        x, y = coords[:, 0], coords[:, 1]
        turned = {
            0: (x, y),
            1: (y, self.width - x),
            2: (self.width - x, self.height - y),
            3: (self.height - y, x),
        }[self.turns]
        return np.stack(turned, axis=1)

    def inverse(self) -> Transform:
        """The turn back."""
        height, width = self.height, self.width
        if self.turns % 2:
            height, width = width, height
        return QuarterTurn(turns=-self.turns, height=height, width=width)


@AUGMENTATIONS.register()
class RandomZoomCrop(T.Augmentation):
    """A square of random place and size, resized to ``size``: scale jitter at a crop's cost.

    The zoom is ``exp(U(log zoom[0], log zoom[1]))``; the square of ``size / zoom`` pixels is cut
    out before it is resized, so the cost does not grow with the image. It never exceeds the image:
    small images are zoomed in further.

    Args:
        size: pixels of the result's sides.
        zoom: smallest and largest zoom.

    Raises:
        ValueError: sizes are not positive, or the zooms do not rise.
    """

    def __init__(self, size: int, zoom: tuple[float, float] = (1.0, 1.0)) -> None:
        super().__init__()
        if size <= 0 or len(zoom) != 2 or not 0 < zoom[0] <= zoom[1]:
            raise ValueError(f"size and zoom must be positive and zoom rise, got {size}, {zoom}")
        self.size = size
        self.zoom = tuple(zoom)

    def get_transform(self, image: np.ndarray) -> Transform:
        """A crop of the ``(H, W, C)`` image, then a resize."""
        height, width = image.shape[:2]
        zoom = math.exp(np.random.uniform(*map(math.log, self.zoom)))
        side = max(1, min(round(self.size / zoom), height, width))
        x = np.random.randint(width - side + 1)
        y = np.random.randint(height - side + 1)
        crop = T.CropTransform(x, y, side, side, width, height)
        return T.TransformList([crop, T.ResizeTransform(side, side, self.size, self.size)])


@AUGMENTATIONS.register()
class Zoom(T.Augmentation):
    """Resize by a fixed factor: small objects become large enough for the pyramid.

    Args:
        factor: of both sides.

    Raises:
        ValueError: it is not positive.
    """

    def __init__(self, factor: float) -> None:
        super().__init__()
        if factor <= 0:
            raise ValueError(f"factor must be positive, got {factor}")
        self.factor = factor

    def get_transform(self, image: np.ndarray) -> Transform:
        """A resize of the ``(H, W, C)`` image."""
        height, width = image.shape[:2]
        new_height, new_width = (max(1, round(side * self.factor)) for side in (height, width))
        return T.ResizeTransform(height, width, new_height, new_width)
