"""Decoders of image files: ``INPUT.DECODER``, for the format ``INPUT.FORMAT``.

``PIL`` is Detectron2's ``read_image``. ``simplejpeg`` passes ordinary JPEG files directly to
libjpeg-turbo, which gives the same pixels in less time. ``DECODERS[name] = function`` adds another.

The formats are those of ``read_image``, and ``bands`` (any number of channels, values unchanged),
for which ``PIL`` means :class:`~retina_plugin.data.band_files.BandReader`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
from detectron2.config import CfgNode
from detectron2.data.detection_utils import read_image
from detectron2.utils.file_io import PathManager
from PIL import Image

from retina_plugin.data.band_files import BANDS, BandReader
from retina_plugin.data.image_files import EXIF_ORIENTATION
from retina_plugin.registry import unknown_name

KEY = "INPUT.DECODER"
Decoder = Callable[[str, str], np.ndarray]  # path, INPUT.FORMAT -> (H, W, C), as read_image
SIMPLEJPEG_COLORS = {"BGR": "BGR", "RGB": "RGB", "L": "GRAY"}


def build_decoder(cfg: CfgNode) -> Decoder:
    """The decoder of a config; ``cfg`` may or may not have seen ``add_retina_config``.

    Raises:
        UnknownNameError, ImportError: see :func:`find_decoder`.
        ValueError: if the decoder cannot read ``INPUT.FORMAT``.
    """
    name = cfg.INPUT.get("DECODER", "PIL")
    decoder = find_decoder(name)
    if cfg.INPUT.FORMAT != BANDS:
        return decoder
    if name == "simplejpeg":
        raise ValueError(f"{KEY} is {name}, but INPUT.FORMAT {BANDS}, for which it must be PIL")
    return BandReader(channels=len(cfg.MODEL.PIXEL_MEAN)) if name == "PIL" else decoder


def find_decoder(name: str) -> Decoder:
    """The decoder with the given name of ``INPUT.DECODER``.

    Raises:
        UnknownNameError: if there is no such decoder; lists the valid names.
        ImportError: if its package is not installed.
    """
    if name not in DECODERS:
        raise unknown_name(KEY, name, DECODERS)
    if name == "simplejpeg" and importlib.util.find_spec(name) is None:
        raise ImportError(
            f"{KEY} is simplejpeg, which is not installed; get it with: "
            'pip install "retina-plugin[jpeg]", or set it to PIL'
        )
    return DECODERS[name]


def read_with_simplejpeg(path: str, image_format: str) -> np.ndarray:
    """``read_image`` with JPEG decoded by ``simplejpeg``, to the same pixels.

    PIL reads everything else: other file types, CMYK, rotated or damaged JPEG, colour images read
    as grey (libjpeg and PIL round differently), formats other than BGR, RGB and L. Pixels can
    differ only where PIL was built with a libjpeg other than libjpeg-turbo.

    Args:
        path: a path for ``PathManager``.
        image_format: ``INPUT.FORMAT``.

    Returns:
        A contiguous uint8 array of shape ``(H, W, C)``; for files read by PIL as ``read_image``.

    Raises:
        OSError, ...: what ``read_image`` raises for the same file.
    """
    import simplejpeg  # an extra

    with PathManager.open(path, "rb") as file:
        image = Image.open(file)  # reads the header, refuses other files and decompression bombs
        if image_format in SIMPLEJPEG_COLORS and _is_plain(image, image_format):
            file.seek(0)
            try:
                return simplejpeg.decode_jpeg(file.read(), SIMPLEJPEG_COLORS[image_format])
            except ValueError:
                pass  # damaged: PIL is more lenient, or gives the reason
    return read_image(path, image_format)


def _is_plain(image: Image.Image, image_format: str) -> bool:
    """Whether libjpeg decodes the image to the same pixels as PIL."""
    modes = ("L",) if image_format == "L" else ("L", "RGB")
    if image.format not in ("JPEG", "MPO") or image.mode not in modes:
        return False
    try:
        return image.getexif().get(EXIF_ORIENTATION, 1) == 1
    except Exception:  # a broken EXIF block, which Detectron2 ignores
        return False


DECODERS: dict[str, Decoder] = {"PIL": read_image, "simplejpeg": read_with_simplejpeg}
