"""Find image files that are missing, truncated, or of an unexpected size or number of bands."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from logging import ERROR, INFO, WARNING, getLogger
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.utils.file_io import PathManager
from PIL import Image
from tqdm import tqdm

from retina_plugin.data.band_files import BandReader, WrongBandsError
from retina_plugin.data.findings import CLEAN, Findings
from retina_plugin.data.image_ends import has_end

THREADS = 16
EXIF_ORIENTATION = 0x0112
SIXTEEN_BIT = ("I", "F")  # PIL's modes begin so


class Kind(NamedTuple):
    """A kind of finding about a file."""

    level: int
    what: str
    advice: str = ""
    why: str = ""
    fix: str = ""


KINDS = {
    "missing": Kind(
        ERROR,
        "image files that do not exist",
        "Correct IMAGES (image_root) or the file names.",
        "Training stops with an error at the first of them.",
        CLEAN,
    ),
    "unreadable": Kind(
        ERROR,
        "image files that cannot be read",
        "Copy them again, or remove the images.",
        "Training stops with an error at the first of them.",
        CLEAN,
    ),
    "size": Kind(
        ERROR,
        "images whose size (width x height) differs from the annotations'",
        "Correct width and height in the annotations, and check that the boxes refer to the image "
        "after its EXIF rotation.",
    ),
    "bands": Kind(
        ERROR,
        "image files whose number of bands differs from the model's",
        "Give MODEL.PIXEL_MEAN and MODEL.PIXEL_STD one number per band, or correct the files.",
    ),
    "16 bits": Kind(
        WARNING,
        "images of 16 bits or floats",
        "Convert the files to 8 bits, or set INPUT.FORMAT: bands with one number per band in "
        "MODEL.PIXEL_MEAN and PIXEL_STD.",
        "Every value above 255 is read as 255, so most pixels become white.",
    ),
    "mirrored": Kind(
        WARNING,
        "images that EXIF mirrors or turns by 180 degrees",
        "Check their boxes: retina anchors CONFIG --pictures 8.",
        "Boxes that were drawn on the unrotated image are misplaced, which sizes do not reveal.",
    ),
    "turned": Kind(INFO, "images rotated by EXIF, in agreement with the annotated sizes"),
    "grey": Kind(INFO, "grey images", "All channels get the same values."),
    "alpha": Kind(INFO, "images with an alpha channel", "It is dropped."),
}

logger = getLogger(__name__)


@dataclass
class ImageFiles:
    """The results of checking the image files of a data set.

    Attributes:
        bytes: the content of each readable file, by path.
        lost: the paths of files that are missing or cannot be read.
    """

    bytes: dict[str, int] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)


class _File(NamedTuple):
    """A checked file: its size in pixels as it is read, its bytes, and the kinds of findings."""

    size: tuple[int, int]
    bytes: int = 0
    turned: str = ""
    kinds: tuple[str, ...] = ()


def check_image_files(
    records: list[dict[str, Any]],
    where: str,
    findings: Findings,
    bands: BandReader | None = None,
) -> ImageFiles:
    """Check every image file by its header and its end, or completely where these do not suffice.

    Args:
        records: Detectron2's records; those without ``file_name`` are skipped.
        where: name of the data set in findings.
        findings: an error, warning or information is added for each kind of problem.
        bands: the reader of the files, if ``INPUT.FORMAT`` is ``bands``.

    Raises:
        ImportError: if a package that the files need is not installed.
    """
    start = time.perf_counter()
    with_files = [record for record in records if "file_name" in record]
    chunks = [with_files[i : i + 256] for i in range(0, len(with_files), 256)]
    seen = ImageFiles()
    with ThreadPoolExecutor(THREADS) as pool:
        looked = pool.map(lambda chunk: list(_look_at(chunk, bands)), chunks)
        for chunk in tqdm(looked, f"{where}: files", total=len(chunks), delay=2, disable=None):
            for path, size, problems in chunk:
                if size is not None:
                    seen.bytes[path] = size
                for name, example in problems:
                    kind = KINDS[name]
                    findings.add(
                        kind.level,
                        where,
                        kind.what,
                        kind.advice,
                        example,
                        why=kind.why,
                        fix=kind.fix,
                    )
                    if name in ("missing", "unreadable"):
                        seen.lost.add(path)
    seconds = time.perf_counter() - start
    logger.info(f"{where}: {len(with_files)} image files checked in {seconds:.1f} s.")
    return seen


def _look_at(
    records: list[dict[str, Any]], bands: BandReader | None
) -> Iterator[tuple[str, int | None, list[tuple[str, str]]]]:
    """For each file its path, bytes, and the key in ``KINDS`` and an example of each problem."""
    for record in records:
        path = record["file_name"]
        try:
            found = _picture(path) if bands is None else _bands(path, bands)
        except (FileNotFoundError, NotADirectoryError):
            yield path, None, [("missing", str(path))]
        except ImportError:
            raise
        except WrongBandsError as error:
            came = f"{path}: {error.came} in the file, {error.expected} of the model"
            yield path, None, [("bands", came)]
        except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error, ...
            came = f"{path}: {str(error).removeprefix(f'{path}: ')}"
            yield path, None, [("unreadable", came)]
        else:
            yield path, found.bytes, _problems(record, found)


def _problems(record: dict[str, Any], found: _File) -> list[tuple[str, str]]:
    path, size = record["file_name"], found.size
    problems = [(kind, str(path)) for kind in found.kinds]
    expected = (record.get("width", size[0]), record.get("height", size[1]))
    if size != expected:
        came = f"{size[0]}x{size[1]} in the file{found.turned}"
        problems.append(("size", f"{path}: {expected[0]}x{expected[1]} in the data, {came}"))
    elif found.turned:
        problems.append(("turned", str(path)))
    return problems


def _bands(path: str, bands: BandReader) -> _File:
    return _File(bands.size_of(path), Path(PathManager.get_local_path(path)).stat().st_size)


def _picture(path: str) -> _File:
    """Check a file in a format that Detectron2 reads."""
    with PathManager.open(path, "rb") as file:
        image = Image.open(file)
        orientation = _orientation(image)
        kinds = tuple(_kinds(image, orientation))
        size, turned = image.size, ""
        if orientation in (5, 6, 7, 8):
            size, turned = size[::-1], f" (turned by its EXIF orientation {orientation})"
        if not has_end(file, image.format):
            image.load()
        return _File(size, file.seek(0, 2), turned, kinds)


def _kinds(image: Image.Image, orientation: int | None) -> Iterator[str]:
    """The keys of ``KINDS`` that follow from the header, except for sizes."""
    if image.mode.startswith(SIXTEEN_BIT):
        yield "16 bits"
    elif image.mode in ("1", "L"):
        yield "grey"
    elif image.mode.endswith("A"):
        yield "alpha"
    if orientation in (2, 3, 4):
        yield "mirrored"


def _orientation(image: Image.Image) -> int | None:
    """The EXIF orientation by which Detectron2 rotates the image, or None."""
    if image.format == "PNG" and not image.info.keys() & {"exif", "XML:com.adobe.xmp"}:
        return None  # getexif would decode the whole image
    try:
        return image.getexif().get(EXIF_ORIENTATION)
    except Exception:  # a broken EXIF block, which Detectron2 ignores too
        return None
