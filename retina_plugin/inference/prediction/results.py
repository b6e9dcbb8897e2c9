"""What an image or a frame gave, for the files that are written of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from retina_plugin.inference.prediction.detections import Detections
from retina_plugin.inference.prediction.sources import Source


class Frame(NamedTuple):
    """A picture of a video.

    Attributes:
        index: from 0.
        time: seconds from the start.
        pixels: ``(H, W, 3)`` uint8 RGB.
        rate: frames a second.
    """

    index: int
    time: float
    pixels: np.ndarray
    rate: float


class Result(NamedTuple):
    """The detections of an image, or of a frame.

    Attributes:
        source: the file.
        image_id: of the image or frame.
        found: what was found.
        frame: of a video, without its pixels.
        picture: ``(H, W, 3)`` uint8 RGB with the detections drawn, where that is wanted.
    """

    source: Source
    image_id: Any
    found: Detections
    frame: Frame | None = None
    picture: np.ndarray | None = None

    @property
    def name(self) -> str:
        """Of files that belong to it: the source's, and the number of a frame."""
        number = f"/{self.frame.index:06d}" if self.frame else ""
        return self.source.name + number


class Output(Protocol):
    """Something that is written while results come in."""

    def add(self, result: Result) -> None:
        """Take the next result; those of a video come one after the other."""
        ...

    def close(self) -> list[tuple[Path, str]]:
        """Finish the files: each path with what it is."""
        ...


def close_all(outputs: Sequence[Output]) -> list[tuple[Path, str]]:
    """Finish all files."""
    return [written for output in outputs for written in output.close()]
