"""Image files that are missing, cut off, or of another size or number of bands than expected."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from logging import ERROR, getLogger
from typing import Any

from detectron2.utils.file_io import PathManager
from PIL import Image

from retina_plugin.data.band_files import BandReader, WrongBandsError
from retina_plugin.data.findings import Findings
from retina_plugin.data.image_ends import has_end

THREADS = 16
EXIF_ORIENTATION = 0x0112
KINDS = {
    "missing": ("image files that do not exist", "Correct IMAGES (image_root) or the file names."),
    "unreadable": ("image files that cannot be read", "Copy them again, or remove the images."),
    "size": (
        "images of another size than the data says (width x height)",
        "Correct width and height in the data, and see that its boxes are of the image as it is "
        "read, after any EXIF rotation.",
    ),
    "bands": (
        "image files of another number of bands than the model",
        "Give MODEL.PIXEL_MEAN and MODEL.PIXEL_STD one number a band, or correct the files.",
    ),
}

logger = getLogger(__name__)


def check_image_files(
    records: list[dict[str, Any]],
    where: str,
    findings: Findings,
    bands: BandReader | None = None,
) -> None:
    """Open every image file: its header and its end, where that says enough.

    Args:
        records: Detectron2's dicts; those without ``file_name`` are passed over.
        where: how findings name the data set.
        findings: gets an error for each kind of problem.
        bands: what will read the files, if ``INPUT.FORMAT`` is ``bands``.

    Raises:
        ImportError: a package that the files need is not installed.
    """
    start = time.perf_counter()
    with_files = [record for record in records if "file_name" in record]
    chunks = [with_files[i : i + 256] for i in range(0, len(with_files), 256)]
    with ThreadPoolExecutor(THREADS) as pool:
        for problems in pool.map(lambda chunk: list(_file_problems(chunk, bands)), chunks):
            for name, example in problems:
                what, advice = KINDS[name]
                findings.add(ERROR, where, what, advice, example)
    seconds = time.perf_counter() - start
    logger.info(f"{where}: {len(with_files)} image files looked at in {seconds:.1f} s.")


def _file_problems(
    records: list[dict[str, Any]], bands: BandReader | None
) -> Iterator[tuple[str, str]]:
    """The key in ``KINDS`` and the example, for each file with a problem."""
    for record in records:
        path = record["file_name"]
        try:
            size, turned = _size_of_picture(path) if bands is None else (bands.size_of(path), "")
        except (FileNotFoundError, NotADirectoryError):
            yield "missing", str(path)
        except ImportError:
            raise
        except WrongBandsError as error:
            yield "bands", f"{path}: {error.came} in the file, {error.expected} of the model"
        except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error, ...
            yield "unreadable", f"{path}: {str(error).removeprefix(f'{path}: ')}"
        else:
            expected = (record.get("width", size[0]), record.get("height", size[1]))
            if size != expected:
                came = f"{size[0]}x{size[1]} in the file{turned}"
                yield "size", f"{path}: {expected[0]}x{expected[1]} in the data, {came}"


def _size_of_picture(path: str) -> tuple[tuple[int, int], str]:
    """See :func:`_upright_size`, of a file that Detectron2 can read."""
    with PathManager.open(path, "rb") as file:
        image = Image.open(file)
        found = _upright_size(image)
        if not has_end(file, image.format):
            image.load()
    return found


def _upright_size(image: Image.Image) -> tuple[tuple[int, int], str]:
    """Width and height as Detectron2 reads the image, turned by EXIF; and a word if it is."""
    if image.format == "PNG" and not image.info.keys() & {"exif", "XML:com.adobe.xmp"}:
        return image.size, ""  # getexif would decode the whole image
    try:
        orientation = image.getexif().get(EXIF_ORIENTATION)
    except Exception:  # a broken EXIF block, which Detectron2 passes over too
        return image.size, ""
    if orientation not in (5, 6, 7, 8):
        return image.size, ""
    return image.size[::-1], f" (turned by its EXIF orientation {orientation})"
