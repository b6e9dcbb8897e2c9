"""The small data sets of ``block_data`` with other bands than three of bytes."""

import json
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from support.block_data import write_blocks

from retina_plugin.data.coco_json import SplitPaths


def five_bands(colours: np.ndarray) -> np.ndarray:
    """``(H, W, 3)`` uint8 -> ``(H, W, 5)`` uint16: 100 times the colours, their mean, a ramp."""
    grey = colours.mean(axis=2, dtype=np.float64, keepdims=True)
    ramp = np.broadcast_to(np.arange(colours.shape[1])[None, :, None], grey.shape)
    return np.concatenate([colours * 100.0, grey * 100, ramp], axis=2).astype(np.uint16)


def save_npy(path: Path, colours: np.ndarray) -> None:
    np.save(path, five_bands(colours).transpose(2, 0, 1))


def save_tif(path: Path, colours: np.ndarray) -> None:
    options = {"photometric": "minisblack", "planarconfig": "contig", "compression": "zlib"}
    tifffile.imwrite(path, five_bands(colours), **options)


def save_png16(path: Path, colours: np.ndarray) -> None:
    Image.fromarray(five_bands(colours)[..., 3]).save(path)


SAVERS = {"npy": (".npy", save_npy), "tif": (".tif", save_tif), "png16": (".png", save_png16)}


def write_band_blocks(folder: Path, split: str, images: int, kind: str) -> SplitPaths:
    """:func:`write_blocks` of ``kind``: five bands as ``npy`` or ``tif``, one as ``png16``."""
    paths = write_blocks(folder, split, images)
    suffix, save = SAVERS[kind]
    content = json.loads(paths.json.read_text())
    for image in content["images"]:
        path = paths.images / image["file_name"]
        colours = np.asarray(Image.open(path))
        path.unlink()
        image["file_name"] = path.with_suffix(suffix).name
        save(path.with_suffix(suffix), colours)
    paths.json.write_text(json.dumps(content))
    return paths
