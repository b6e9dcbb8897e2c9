"""One image, from a file or from memory, as the detector's data mapper would read it."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
from detectron2.data.detection_utils import convert_PIL_to_numpy
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import log_first_n
from PIL import Image, ImageOps

from retina_plugin.data.band_files import BANDS
from retina_plugin.data.decoders import Decoder

MAY_BE_DEEP = (".png", ".tif", ".tiff", ".pgm", ".ppm")
DEEP = ("I", "F", "I;16", "I;16L", "I;16B")  # PIL's modes

ImageLike = str | Path | Image.Image | np.ndarray


class ImageError(ValueError):
    """An image cannot be read, or is none; the message names it."""


def read_pixels(image: ImageLike, decoder: Decoder, image_format: str) -> np.ndarray:
    """``(H, W, C)`` in ``INPUT.FORMAT``.

    Args:
        image: a file's path; a PIL image, turned as its EXIF says, as files are; or an array:
            ``(H, W, 3)`` uint8 RGB or ``(H, W)`` uint8 grey, and with ``bands`` ``(H, W, C)``.
        decoder: of files, see ``build_decoder``.
        image_format: ``INPUT.FORMAT``.

    Raises:
        ImageError: see there.
        ImportError: a package that the file needs is not installed.
    """
    if isinstance(image, str | os.PathLike):
        return _read_file(str(image), decoder, image_format)
    if isinstance(image, Image.Image):
        image = ImageOps.exif_transpose(image)
        if image_format != BANDS:
            return convert_PIL_to_numpy(image, image_format)
        image = np.asarray(image)
    if not isinstance(image, np.ndarray):
        raise ImageError(
            f"an image is a path, a PIL image or a numpy array, got {type(image).__name__}"
        )
    if image_format == BANDS and image.ndim in (2, 3):
        return np.ascontiguousarray(np.atleast_3d(image), dtype=np.float32)
    is_grey, is_rgb = image.ndim == 2, image.ndim == 3 and image.shape[2] == 3
    if image.dtype != np.uint8 or not (is_grey or is_rgb):
        raise ImageError(
            "an array is an image if it is (H, W, 3) uint8, RGB, or (H, W) uint8, grey; got "
            f"{image.shape} {image.dtype}"
        )
    return convert_PIL_to_numpy(Image.fromarray(image), image_format)


def _warn_of_depth(path: str) -> None:
    with PathManager.open(path, "rb") as file:
        mode = Image.open(file).mode
    if mode not in DEEP:
        return
    text = (
        f"{path}: has more than 8 bits a pixel, what is above 255 becomes white. INPUT.FORMAT "
        "bands keeps the values, for a detector trained so. (Said of the first such file alone.)"
    )
    log_first_n(logging.WARNING, text, name=__name__)


def _read_file(path: str, decoder: Decoder, image_format: str) -> np.ndarray:
    try:
        if image_format != BANDS and Path(path).suffix.lower() in MAY_BE_DEEP:
            _warn_of_depth(path)
        return decoder(path, image_format)
    except (FileNotFoundError, NotADirectoryError):
        raise ImageError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{path}: is a folder, not an image") from None
    except ImportError:
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error, ...
        reason = str(error).removeprefix(f"{path}: ") or type(error).__name__
        raise ImageError(f"{path}: cannot be read as an image: {reason}") from error
