"""Image files that are missing, cut off, or of another size than the data says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from logging import ERROR, getLogger
from typing import IO, Any

from detectron2.utils.file_io import PathManager
from PIL import Image

from retina_plugin.data.findings import Findings

THREADS = 16
JPEG_END = b"\xff\xd9"
PNG_END = b"IEND\xaeB`\x82"
EXIF_ORIENTATION = 0x0112
KINDS = {
    "missing": ("image files that do not exist", "Correct IMAGES (image_root) or the file names."),
    "unreadable": ("image files that cannot be read", "Copy them again, or remove the images."),
    "size": (
        "images of another size than the data says (width x height)",
        "Correct width and height in the data, and see that its boxes are of the image as it is "
        "read, after any EXIF rotation.",
    ),
}

logger = getLogger(__name__)


def check_image_files(records: list[dict[str, Any]], where: str, findings: Findings) -> None:
    """Open every image file: its header and its end, not the pixels in between.

    Args:
        records: Detectron2's dicts; those without ``file_name`` are passed over.
        where: how findings name the data set.
        findings: gets an error for each kind of problem.
    """
    start = time.perf_counter()
    with_files = [record for record in records if "file_name" in record]
    chunks = [with_files[i : i + 256] for i in range(0, len(with_files), 256)]
    with ThreadPoolExecutor(THREADS) as pool:
        for problems in pool.map(lambda chunk: list(_file_problems(chunk)), chunks):
            for name, example in problems:
                what, advice = KINDS[name]
                findings.add(ERROR, where, what, advice, example)
    seconds = time.perf_counter() - start
    logger.info(f"{where}: {len(with_files)} image files looked at in {seconds:.1f} s.")


def _file_problems(records: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """The key in ``KINDS`` and the example, for each file with a problem."""
    for record in records:
        path = record["file_name"]
        try:
            with PathManager.open(path, "rb") as file:
                image = Image.open(file)
                size, turned = _upright_size(image)
                if not _has_end(file, image.format):
                    image.load()
        except (FileNotFoundError, NotADirectoryError):
            yield "missing", str(path)
        except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error, ...
            yield "unreadable", f"{path}: {error}"
        else:
            expected = (record.get("width", size[0]), record.get("height", size[1]))
            if size != expected:
                came = f"{size[0]}x{size[1]} in the file{turned}"
                yield "size", f"{path}: {expected[0]}x{expected[1]} in the data, {came}"


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


def _has_end(file: IO[bytes], image_format: str | None) -> bool:
    """Whether a JPEG or PNG file ends as it should; others, and odd ends, need decoding."""
    file.seek(max(0, file.seek(0, 2) - len(PNG_END)))
    end = file.read()
    if image_format in ("JPEG", "MPO"):
        return end.endswith(JPEG_END)
    return image_format == "PNG" and end == PNG_END
