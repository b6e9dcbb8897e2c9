"""TIFF of any number of bands with their values unchanged, by PIL or, where it cannot, tifffile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from PIL import ExifTags, Image

TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how a file begins
PHOTOMETRIC, SAMPLE_FORMAT, BITS, EXTRA_SAMPLES, KIND = 262, 339, 258, 338, 254  # tags
REDUCED = 1  # bit of KIND: a smaller copy of another page
# photometric interpretation, sample format, bits: the pages that PIL reads as they are. It makes 8
# bits of colours of 16, turns "0 is white" round, drops what is beyond the fourth band.
PIL_READS = {(1, 1, (8,)), (1, 1, (16,)), (1, 3, (32,)), (2, 1, (8, 8, 8))}
TO_HWC = {
    "YX": lambda page: page[..., None],
    "YXS": lambda page: page,
    "SYX": lambda page: page.transpose(1, 2, 0),
}


def read_tiff(file: IO[bytes]) -> np.ndarray:
    """``(H, W, C)``: the bands of all pages of full size, in order.

    Raises:
        ValueError, ...: it is no TIFF of bands, is cut off, or is not upright; does not name it.
        ImportError: tifffile is needed and not installed.
    """
    pages = _by_pil(file)
    if pages is None:
        file.seek(0)
        pages = list(_by_tifffile(file))
    sizes = sorted({page.shape[:2] for page in pages})
    if len(sizes) != 1:
        raise ValueError(f"pages of one size were expected, got (height, width) {sizes}")
    return np.concatenate(pages, axis=2)


def require_upright(orientation: Any) -> None:
    """Bands are taken as they lie; a reader that turns them would leave their boxes elsewhere.

    Raises:
        ValueError: the ``Orientation`` of EXIF and TIFF is another than upright.
    """
    if orientation not in (None, 0, 1):
        raise ValueError(f"its Orientation is {orientation}: save it upright, without the tag")


def _by_pil(file: IO[bytes]) -> list[np.ndarray] | None:
    """The pages as ``(H, W, C)``; None where PIL cannot read one of them unchanged."""
    try:
        image = Image.open(file)
        count = image.n_frames
    except Image.DecompressionBombError:
        raise
    except Exception:  # a kind that PIL does not know; if it is broken, tifffile says so
        return None
    pages = []
    for number in range(count):
        image.seek(number)
        tags = image.tag_v2
        if tags.get(KIND, 0) & REDUCED:
            continue
        sample_format, *_ = tags.get(SAMPLE_FORMAT, (1,))
        kind = tags.get(PHOTOMETRIC), sample_format, tags.get(BITS, (1,))
        if kind not in PIL_READS or EXTRA_SAMPLES in tags:
            return None
        require_upright(tags.get(ExifTags.Base.Orientation))
        pixels = np.array(image)
        pages.append(pixels if pixels.ndim == 3 else pixels[..., None])
    return pages


def _by_tifffile(file: IO[bytes]) -> Iterator[np.ndarray]:
    """The pages of full size as ``(H, W, C)``."""
    try:
        import tifffile  # an extra
    except ImportError as error:
        raise ImportError(
            "a TIFF of several bands, or of another kind that PIL cannot read unchanged, needs "
            'tifffile, which is not installed; get it with: pip install "retina-plugin[bands]"'
        ) from error
    end = file.seek(0, 2)
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        for page in tiff.pages:
            page = page.aspage()
            if page.subfiletype & REDUCED:
                continue
            if page.axes not in TO_HWC:
                raise ValueError(f"bands were expected, got an array of axes {page.axes}")
            pixels, most = page.imagewidth * page.imagelength, Image.MAX_IMAGE_PIXELS
            if most is not None and pixels > 2 * most:  # PIL's guard for the memory
                raise ValueError(f"{pixels} pixels are more than twice PIL's MAX_IMAGE_PIXELS")
            parts = zip(page.dataoffsets, page.databytecounts, strict=True)
            if any(start + count > end for start, count in parts):
                raise ValueError("cut off: its data end beyond the file")
            orientation = page.tags.get(int(ExifTags.Base.Orientation))
            require_upright(orientation and orientation.value)
            yield TO_HWC[page.axes](page.asarray())
