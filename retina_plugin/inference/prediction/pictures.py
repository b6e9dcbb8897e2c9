"""Images and videos with the detections drawn on them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from retina_plugin.drawing import draw_detections, to_picture
from retina_plugin.inference.prediction.detections import Detections
from retina_plugin.inference.prediction.results import Result
from retina_plugin.inference.prediction.sources import Source
from retina_plugin.inference.prediction.video import VideoWriter

QUALITY = 92
LEGIBLE = 640  # pixels that the longer side of a picture has at least
LARGEST_SCALE = 4


def draw(
    pixels: np.ndarray, input_format: str, found: Detections, *, enlarge: bool = True
) -> np.ndarray:
    """``(H', W', 3)`` uint8 RGB: an image with its detections.

    Args:
        pixels: ``(H, W, C)`` in ``input_format``.
        input_format: ``INPUT.FORMAT``.
        found: in the pixels of the image.
        enlarge: small images by a whole number, so that names and scores can be read.
    """
    image = to_picture(
        torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))), input_format
    )
    wanted = math.ceil(LEGIBLE / max(image.shape[1:])) if enlarge else 1
    several = len(found.class_names) > 1
    labels = [
        f"{name} {score:.2f}" if several else f"{score:.2f}"
        for name, score in zip(found.names, found.scores, strict=True)
    ]
    drawn = draw_detections(
        image,
        torch.from_numpy(found.boxes),
        found.classes.tolist(),
        labels,
        scale=float(min(wanted, LARGEST_SCALE)),
    )
    return drawn.permute(1, 2, 0).numpy()


class PictureOutput:
    """``pictures/<image>.jpg`` and ``pictures/<video>.mp4``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "pictures"
        self._video: VideoWriter | None = None
        self._video_of: Source | None = None

    def add(self, result: Result) -> None:
        """See :class:`Output`."""
        if result.picture is None:
            raise ValueError(f"{result.source.path}: was not drawn")
        if self._video_of != (result.source if result.frame else None):
            self._end_video()
        path = self._folder / f"{result.source.name}.{'mp4' if result.frame else 'jpg'}"
        if result.frame is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(result.picture).save(path, quality=QUALITY)
            return
        if self._video is None:
            height, width = result.picture.shape[:2]
            path.parent.mkdir(parents=True, exist_ok=True)
            self._video = VideoWriter(path, width=width, height=height, rate=result.frame.rate)
            self._video_of = result.source
        self._video.add(result.picture, result.frame.time)

    def close(self) -> list[tuple[Path, str]]:
        """See :class:`Output`."""
        self._end_video()
        return [(self._folder, "pictures with the detections")]

    def _end_video(self) -> None:
        if self._video is not None:
            self._video.close()
        self._video, self._video_of = None, None
