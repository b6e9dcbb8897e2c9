"""Tree crowns: real aerial photographs with hand-drawn boxes, made into COCO json tiles.

The photographs and Pascal VOC boxes lie in the package `deepforest` (MIT); NEON airborne imagery
of Yellowstone (YELL) and Ordway-Swisher (OSBS). One class, `Tree`. The splits:

- `train`: the northern 75 % of the rows of YELL_528; `val`: its southern 25 %, to tune on.
- `yell_541`: another photograph of the same site, test; `osbs_029`: another site, test. They are
  reported apart and never tuned on.
- `train_photo`, `val_photo`, `yell_541_photo`: the same, each in one piece, for `INPUT.TILES`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
from PIL import Image
from tqdm import tqdm

from retina_plugin.data.coco_json import CocoDataset, SplitPaths, make_once
from retina_plugin.data.package_files import PINNED, package_file
from retina_plugin.data.tiling import Window, clip_boxes, tile_windows

CLASS_NAMES = ["Tree"]
YELL_528 = "2019_YELL_2_528000_4978000_image_crop2"
YELL_541 = "2019_YELL_2_541000_4977000_image_crop"
OSBS_029 = "OSBS_029"


class CrownSplit(NamedTuple):
    """Rows `north`..`south` (shares of the height) of a photograph, and how they are tiled."""

    source: str
    north: float
    south: float
    tile: int
    overlap: int


# A training crop of 256 px taken at a zoom of 0.6 spans 420 px, hence tiles of about 512; they
# overlap so that crops, which favour a tile's middle, show the whole scene evenly and nearly every
# tree is whole in some tile. Tiles to evaluate on must not overlap: each tree counts once.
WHOLE = 4096  # more than any photograph has
SPLITS = {
    "train": CrownSplit(YELL_528, 0.0, 0.75, 512, 128),
    "val": CrownSplit(YELL_528, 0.75, 1.0, 400, 0),
    "yell_541": CrownSplit(YELL_541, 0.0, 1.0, 400, 0),
    "osbs_029": CrownSplit(OSBS_029, 0.0, 1.0, 400, 0),
    "train_photo": CrownSplit(YELL_528, 0.0, 0.75, WHOLE, 0),
    "val_photo": CrownSplit(YELL_528, 0.75, 1.0, WHOLE, 0),
    "yell_541_photo": CrownSplit(YELL_541, 0.0, 1.0, WHOLE, 0),
}
MIN_VISIBLE = 0.5
# Aerial grain hardly compresses (728 kB at level 1 or 9, 787 kB stored, for 512 x 512), and a
# stored PNG decodes four times as fast (1.6 ms, not 6.5).
PNG_COMPRESS_LEVEL = 0


def prepare_crowns(out_dir: Path) -> dict[str, SplitPaths]:
    """Make `out_dir/SPLIT.json` and a folder of its tiles beside it, for each of `SPLITS`.

    Does nothing when `out_dir` already holds the result of the same recipe.

    Raises:
        PackageFileError: `deepforest` is missing or not the pinned version.
    """
    out_dir = Path(out_dir)
    recipe = {
        "name": "tree crowns",
        "version": 1,
        "splits": SPLITS,
        "min_visible": MIN_VISIBLE,
        "png_compress_level": PNG_COMPRESS_LEVEL,
        "sources": PINNED["deepforest"].files,
    }
    paths = {name: SplitPaths.of(out_dir, name) for name in SPLITS}
    make_once(
        out_dir,
        recipe,
        lambda: {
            name: _make_split(split, paths[name])
            for name, split in tqdm(SPLITS.items(), unit="split", disable=None)
        },
    )
    return paths


def read_voc(path: Path) -> tuple[np.ndarray, tuple[int, int]]:
    """Boxes (M, 4) XYXY and image size (width, height) of a Pascal VOC xml of class Tree.

    The annotation tool (labelImg) stores continuous edges, from 0 to the image's width, but writes
    1 for 0; the numbers are used as they are.

    Raises:
        ValueError: a class other than Tree.
    """
    root = ElementTree.parse(path).getroot()
    boxes = []
    for item in root.iterfind("object"):
        name = item.findtext("name")
        if name not in CLASS_NAMES:
            raise ValueError(f"{path}: expected objects of class {CLASS_NAMES}, got {name!r}")
        boxes.append(
            [float(item.findtext(f"bndbox/{k}")) for k in ("xmin", "ymin", "xmax", "ymax")]
        )
    size = int(root.findtext("size/width")), int(root.findtext("size/height"))
    return np.array(boxes, dtype=np.float64).reshape(-1, 4), size


def _make_split(split: CrownSplit, paths: SplitPaths) -> CocoDataset:
    boxes, (width, height) = read_voc(package_file("deepforest", f"data/{split.source}.xml"))
    with Image.open(package_file("deepforest", f"data/{split.source}.png")) as image:
        photo = image.convert("RGB")
    if photo.size != (width, height):
        raise ValueError(f"{split.source}: the xml says {width}x{height}, the photo {photo.size}")
    region = Window(0, round(split.north * height), width, round(split.south * height))

    paths.images.mkdir(parents=True, exist_ok=True)
    dataset = CocoDataset(
        CLASS_NAMES, {"description": f"tree crowns, {split.source}, deepforest (MIT)"}
    )
    for window in tile_windows(region, split.tile, split.overlap):
        tile_boxes = clip_boxes(boxes, window, MIN_VISIBLE)
        dataset.dropped += tile_boxes.slivers
        name = f"{split.source}_x{window.x0}_y{window.y0}.png"
        photo.crop(tuple(window)).save(paths.images / name, compress_level=PNG_COMPRESS_LEVEL)
        image_id = dataset.add_image(
            name, window.width, window.height, source=split.source, window=list(window)
        )
        for box, crowd in zip(tile_boxes.boxes, tile_boxes.crowd, strict=True):
            dataset.add_box(image_id, box, crowd=bool(crowd))
    dataset.save(paths.json)
    return dataset
