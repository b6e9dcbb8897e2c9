"""Image files of any number of bands with their values unchanged: ``INPUT.FORMAT: bands``.

A file is recognised by its content: npy, TIFF, or what else PIL opens, 16-bit PNG among them.
"""

from __future__ import annotations

import math
from typing import IO

import numpy as np
import torch
from detectron2.utils.file_io import PathManager
from PIL import ExifTags, Image
from torchvision.io import ImageReadMode, decode_image

from retina_plugin.data.image_ends import has_end
from retina_plugin.data.tiff_bands import TIFFS, read_tiff, require_upright

BANDS = "bands"
NPY, NPZ, PNG = b"\x93NUMPY", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n"  # how files begin
NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
PIL_MODES = ("L", "LA", "RGB", "RGBA", "CMYK", "I", "I;16", "I;16L", "I;16B", "F")
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by IHDR's colour type
EXIF = {"exif", "XML:com.adobe.xmp"}  # keys of PIL's info where a PNG may be turned

Shape = tuple[int, ...]


class WrongBandsError(ValueError):
    """A file has another number of bands than the model."""

    def __init__(self, path: str, *, came: int, expected: int) -> None:
        super().__init__(
            f"{path}: {came} bands, but MODEL.PIXEL_MEAN has {expected} numbers: give "
            "MODEL.PIXEL_MEAN and MODEL.PIXEL_STD one a band, or correct the file"
        )
        self.came = came
        self.expected = expected


class BandReader:
    """A decoder of image files of C bands, which gives ``(H, W, C)`` float32, the file's values.

    float32 is what Detectron2's augmentations and torch take whatever C is. It holds integers up to
    2^24 exactly; larger ones and float64 are rounded.

    * npy: ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)``; where both ends have length C, the last one
      is the bands.
    * TIFF: a page is one band or several, interleaved or planar. Pages follow each other as bands;
      reduced copies (overviews) are left out. See ``tiff_bands.py``.
    * What else PIL reads: the channels in their order, as they are. 16-bit PNG of several channels,
      of which PIL makes 8 bits, is torchvision's.

    Args:
        channels: C, the length of ``MODEL.PIXEL_MEAN``.
    """

    def __init__(self, *, channels: int) -> None:
        self.channels = channels

    def __call__(self, path: str, _: str = BANDS) -> np.ndarray:
        """The image of a file; the second argument is any decoder's, the format.

        Raises:
            FileNotFoundError: there is no such file.
            WrongBandsError: it has another number of bands.
            ValueError: it cannot be read, or has values that are not finite; names the file.
            ImportError: tifffile is needed and not installed.
        """
        with PathManager.open(path, "rb") as file:
            image = self._decode(file, path)
        self._require_bands(image.shape[2], path)
        if image.dtype.kind == "f" and not np.isfinite(image).all():
            raise ValueError(
                f"{path}: has values that are not finite (NaN or infinite), which would make the "
                "loss infinite or NaN, too: replace the no-data value by a number"
            )
        return np.ascontiguousarray(image, dtype=np.float32)

    def size_of(self, path: str) -> tuple[int, int]:
        """Width and height of a file; of a whole npy or PNG only the header is read.

        Raises: what reading raises.
        """
        with PathManager.open(path, "rb") as file:
            shape = self._shape_by_header(file, path)
        if shape is None:
            shape = self(path).shape
        height, width, bands = shape
        self._require_bands(bands, path)
        return width, height

    def _decode(self, file: IO[bytes], path: str) -> np.ndarray:
        """``(H, W, C)`` of the file's own type."""
        begin = _begin_of(file)
        try:
            if begin.startswith(NPY):
                return self._bands_last(_read_npy(file))
            if begin.startswith(TIFFS):
                return read_tiff(file)
            if begin.startswith(NPZ):
                raise ValueError("it is an archive: save each image with numpy.save")
            return _read_picture(file)
        except ImportError:
            raise
        except Exception as error:  # Pillow and tifffile raise all sorts
            raise _unreadable(path, error) from error

    def _shape_by_header(self, file: IO[bytes], path: str) -> Shape | None:
        """``(H, W, C)`` of a whole file; None where that cannot be known without decoding."""
        begin = _begin_of(file)
        try:
            if begin.startswith(NPY):
                # of a shape's array without contents: its views cost nothing
                return self._bands_last(np.broadcast_to(0, _npy_shape(file))).shape
            if begin.startswith(PNG):
                image = _open_picture(file)
                if has_end(file, "PNG") and not image.info.keys() & EXIF:
                    return image.height, image.width, _depth_and_channels(file, image)[1]
        except Exception as error:
            raise _unreadable(path, error) from error
        return None

    def _bands_last(self, array: np.ndarray) -> np.ndarray:
        """``(H, W)``, ``(H, W, C)`` or ``(C, H, W)`` -> ``(H, W, C)``."""
        if array.ndim == 2:
            return array[..., None]
        is_first = self.channels == array.shape[0] != array.shape[2]
        return array.transpose(1, 2, 0) if is_first else array

    def _require_bands(self, came: int, path: str) -> None:
        if came != self.channels:
            raise WrongBandsError(path, came=came, expected=self.channels)


def _unreadable(path: str, error: Exception) -> ValueError:
    reason = str(error) or type(error).__name__
    return ValueError(f"{path}: cannot be read as an image of bands: {reason}")


def _begin_of(file: IO[bytes]) -> bytes:
    begin = file.read(len(PNG))
    file.seek(0)
    return begin


def _npy_shape(file: IO[bytes]) -> Shape:
    """The shape of a whole array of numbers; nothing that the file asks for is allocated or run."""
    version = np.lib.format.read_magic(file)
    if version not in NPY_HEADERS:
        raise ValueError(f"npy of version {version}, which plain numbers do not need")
    shape, _, dtype = NPY_HEADERS[version](file)
    if dtype.kind not in "buif":
        raise ValueError(f"numbers were expected, got an array of {dtype}")
    if len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(f"(H, W), (H, W, C) or (C, H, W) was expected, got an array of {shape}")
    start = file.tell()
    came, wanted = file.seek(0, 2) - start, math.prod(shape) * dtype.itemsize
    if came < wanted:
        raise ValueError(f"cut off: {came} of the {wanted} bytes that its header promises")
    return shape


def _read_npy(file: IO[bytes]) -> np.ndarray:
    _npy_shape(file)
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _open_picture(file: IO[bytes]) -> Image.Image:
    image = Image.open(file)
    if image.mode not in PIL_MODES:
        raise ValueError(
            f"its pixels, of PIL's mode {image.mode}, are no values of bands: save it as grey, RGB "
            "or npy"
        )
    return image


def _read_picture(file: IO[bytes]) -> np.ndarray:
    image = _open_picture(file)
    depth, channels = _depth_and_channels(file, image)
    if depth == 16 and channels > 1:
        file.seek(0)
        content = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)
        return decode_image(content, ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy()
    pixels = np.array(image)
    require_upright(image.getexif().get(ExifTags.Base.Orientation))
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _depth_and_channels(file: IO[bytes], image: Image.Image) -> tuple[int, int]:
    """Of a PNG bits a channel, else 0; and channels: PIL says RGBA of 16-bit grey with alpha."""
    if image.format != "PNG":
        return 0, len(image.getbands())
    at = file.tell()  # PIL goes on here
    file.seek(len(PNG) + 16)  # behind the name of IHDR, width and height
    depth, colour_type = file.read(2)
    file.seek(at)
    return depth, PNG_CHANNELS[colour_type]
