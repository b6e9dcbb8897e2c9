"""A video, made in the test."""

from pathlib import Path

import av
import numpy as np


def write_video(path: Path, *, frames: int = 5, size: tuple[int, int] = (96, 160)) -> list:
    """Noise that changes slowly, 10 frames a second, stored without loss; returns the frames."""
    rng = np.random.default_rng(3)
    pictures = [rng.integers(256, size=(*size, 3), dtype=np.uint8) for _ in range(frames)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width = size
        stream.pix_fmt = "bgr0"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return pictures
