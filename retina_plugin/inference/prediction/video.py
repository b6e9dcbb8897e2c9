"""Videos, one frame at a time, through PyAV (FFmpeg's libraries in a wheel)."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from retina_plugin.inference.prediction.images import ImageError
from retina_plugin.inference.prediction.results import Frame

CODECS = ("libx264", "mpeg4")  # the first one that this PyAV was built with
TICKS = 60_000  # a second; MPEG-4 allows no finer


def require_av(path: Path) -> None:
    """Say how to get PyAV.

    Raises:
        ImportError: it is not installed.
    """
    if importlib.util.find_spec("av") is None:
        raise ImportError(
            f"{path}: videos are read by PyAV, which is not installed; get it with: "
            'pip install "retina-plugin[video]"'
        )


def count_frames(path: Path) -> int | None:
    """As the file's header says; None if it does not, or is none."""
    import av  # an extra

    try:
        with av.open(str(path)) as container:
            return container.streams.video[0].frames or None
    except (av.FFmpegError, OSError, IndexError):
        return None  # reading it will say why


def read_frames(path: Path) -> Iterator[Frame]:
    """Every frame of the first video stream, upright.

    Raises:
        ImageError: it is no video, or cannot be read further; names the frame.
    """
    import av  # an extra

    index = 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ImageError(f"{path}: there are no pictures in it")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            rate = float(stream.average_rate or stream.guessed_rate or 25)
            for frame in container.decode(stream):
                time = frame.time if frame.time is not None else index / rate
                yield Frame(index, float(time), _upright(frame), rate)
                index += 1
    except (av.FFmpegError, OSError) as error:
        where = f" after {index} frames" if index else ""
        raise ImageError(f"{path}: cannot be read as a video{where}: {error}") from error
    if not index:
        raise ImageError(f"{path}: there are no frames in it")


def _upright(frame: Any) -> np.ndarray:
    """``(H, W, 3)`` RGB, turned as the file asks: telephones film on their side."""
    pixels = frame.to_ndarray(format="rgb24")
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


class VideoWriter:
    """An mp4 without sound, each frame at its time.

    Args:
        path: is replaced when the video is complete.
        width, height: of the frames; an odd side gets a pixel more, which H.264 needs.
        rate: frames a second, on average.
    """

    def __init__(self, path: Path, *, width: int, height: int, rate: float) -> None:
        import av  # an extra

        self._av = av
        self._path = path
        self._beside = path.with_name(f".{path.name}")
        self._container = av.open(str(self._beside), "w", format="mp4")
        codec = next(name for name in CODECS if name in av.codecs_available)
        fraction = Fraction(rate).limit_denominator(1001)
        self._stream = self._container.add_stream(codec, rate=fraction)
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, TICKS)
        self._last = -1

    def add(self, picture: np.ndarray, time: float) -> None:
        """The next frame, ``(H, W, 3)`` uint8 RGB, shown ``time`` seconds from the start."""
        height, width = picture.shape[:2]
        if height % 2 or width % 2:
            picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        self._last = max(self._last + 1, round(time * TICKS))  # players want it to rise
        frame.pts, frame.time_base = self._last, Fraction(1, TICKS)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what is left."""
        self._container.mux(self._stream.encode())
        self._container.close()
        self._beside.replace(self._path)
