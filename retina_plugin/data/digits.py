"""Digits on photographs: ten classes with exact boxes, a semi-synthetic data set made here.

Real are the handwriting (`scikit-learn`: 1,797 digits of 8x8 by 13 people) and the photographs
(`scikit-learn`, `scikit-image`); where a digit stands, its size and its colour are drawn at random
and are not. A score on it says that training works, not how a detector does on real scenes.
Handwriting and photographs are disjoint between train and val.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from retina_plugin.data.coco_json import CocoDataset, SplitPaths, make_once
from retina_plugin.data.package_files import PINNED, package_file

CLASS_NAMES = [str(digit) for digit in range(10)]
GLYPHS = ("sklearn", "datasets/data/digits.csv.gz")
# The photographs of val are in the public domain (NASA, SpaceX) or CC0, so that predictions on
# them may be shown.
PHOTOS = {
    "train": [
        ("sklearn", "datasets/images/china.jpg"),
        ("sklearn", "datasets/images/flower.jpg"),
        ("skimage", "data/chelsea.png"),
        ("skimage", "data/hubble_deep_field.jpg"),
        ("skimage", "data/ihc.png"),
        ("skimage", "data/motorcycle_left.png"),
        ("skimage", "data/retina.jpg"),
    ],
    "val": [
        ("skimage", "data/astronaut.png"),
        ("skimage", "data/coffee.png"),
        ("skimage", "data/rocket.jpg"),
    ],
}
# The file lists its writers one after the other: a cut keeps all but one of them apart.
VAL_GLYPHS_FROM = 1437

IMAGE_SIZE = 160
PHOTO_CROP = (160, 400)  # side of the square of photograph that becomes the background
DIGITS_PER_IMAGE = (1, 6)
INK_HEIGHT = (16.0, 64.0)  # pixels, log-uniform
ASPECT = (0.8, 1.25)  # extra stretch of the width, log-uniform
MAX_OVERLAP = 0.1  # of the smaller box
MIN_CONTRAST = 70.0  # of 255, between a digit's luminance and the photograph's behind its ink,
LOW_CONTRAST_SHARE = 0.15  # which up to this share of its pixels may miss
INK_THRESHOLD = 0.35  # opacity below this is not drawn, so that the box is where ink is
JPEG = {"quality": 95, "subsampling": 0}
LUMINANCE = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


@dataclass(frozen=True)
class Drawing:
    """An image (H, W, 3) uint8 with the XYXY boxes (M, 4) and digits (M,) drawn on it."""

    image: np.ndarray
    boxes: np.ndarray
    digits: np.ndarray


def prepare_digits(
    out_dir: Path, *, train_images: int = 1200, val_images: int = 300, seed: int = 0
) -> dict[str, SplitPaths]:
    """Make `out_dir/{train,val}.json` and the folders of images beside them.

    Image i of a split depends on the seed and i alone. Does nothing when `out_dir` already holds
    the result of the same recipe.

    Raises:
        PackageFileError: a package is missing or its file is not the pinned one.
    """
    out_dir = Path(out_dir)
    numbers = {"train": train_images, "val": val_images}
    recipe = {
        "name": "digits",
        "version": 1,  # raise it with any change below that the values here do not show
        "images": numbers,
        "seed": seed,
        "photos": PHOTOS,
        "drawing": [
            *(IMAGE_SIZE, PHOTO_CROP, DIGITS_PER_IMAGE, INK_HEIGHT, ASPECT, MAX_OVERLAP),
            *(MIN_CONTRAST, LOW_CONTRAST_SHARE, INK_THRESHOLD, JPEG, VAL_GLYPHS_FROM),
        ],
        "sources": [PINNED[package].files for package in ("sklearn", "skimage")],
    }
    paths = {name: SplitPaths.of(out_dir, name) for name in numbers}
    make_once(
        out_dir,
        recipe,
        lambda: {
            name: _make_split(name, count, seed, paths[name]) for name, count in numbers.items()
        },
    )
    return paths


def read_glyphs(split: str) -> tuple[np.ndarray, np.ndarray]:
    """The handwritten digits of a split: ink (n, 8, 8) in 0..1 and labels (n,)."""
    with gzip.open(package_file(*GLYPHS), "rt") as file:
        table = np.loadtxt(file, delimiter=",")
    rows = table[VAL_GLYPHS_FROM:] if split == "val" else table[:VAL_GLYPHS_FROM]
    return (rows[:, :64] / 16.0).reshape(-1, 8, 8).astype(np.float32), rows[:, 64].astype(int)


def read_photos(split: str) -> list[Image.Image]:
    """The photographs of a split, RGB."""
    photos = []
    for source in PHOTOS[split]:
        with Image.open(package_file(*source)) as image:
            photos.append(image.convert("RGB"))
    return photos


def draw_digits(
    photo: Image.Image, glyphs: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> Drawing:
    """Draw 1 to 6 handwritten digits of random classes on a random crop of `photo`.

    A digit that finds no free place in a number of tries is left out; the first always has one.
    """
    canvas = _background(photo, rng)
    boxes: list[list[int]] = []
    digits: list[int] = []
    for _ in range(rng.integers(DIGITS_PER_IMAGE[0], DIGITS_PER_IMAGE[1] + 1)):
        digit = int(rng.integers(10))
        ink = _ink(glyphs[rng.choice(np.flatnonzero(labels == digit))], rng)
        box = _free_place(ink.shape, boxes, rng)
        if box is not None:
            _paint(canvas, ink, box, rng)
            boxes.append(box)
            digits.append(digit)
    return Drawing(
        canvas.round().astype(np.uint8),
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.array(digits, dtype=int),
    )


def _background(photo: Image.Image, rng: np.random.Generator) -> np.ndarray:
    low, high = PHOTO_CROP
    side = int(rng.integers(low, min(high, *photo.size) + 1))
    x0 = int(rng.integers(photo.width - side + 1))
    y0 = int(rng.integers(photo.height - side + 1))
    crop = photo.resize(
        (IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC, (x0, y0, x0 + side, y0 + side)
    )
    pixels = np.asarray(crop, dtype=np.float32)
    return (pixels[:, ::-1] if rng.random() < 0.5 else pixels).copy()


def _ink(glyph: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Opacity (h, w) in 0..1 of the scaled glyph, cropped to its ink: no empty border row."""
    rows, columns = np.flatnonzero(glyph.any(1)), np.flatnonzero(glyph.any(0))
    height = np.exp(rng.uniform(*np.log(INK_HEIGHT)))
    scale = height / (rows[-1] - rows[0] + 1)
    stretch = np.exp(rng.uniform(*np.log(ASPECT)))
    # An empty rim of one cell lets the stroke fade out on its outer side too.
    cells = np.pad(glyph, 1)
    size = max(1, round(len(cells[0]) * scale * stretch)), max(1, round(len(cells) * scale))
    ink = np.asarray(Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)).clip(0, 1)
    ink = ink * ink * (3 - 2 * ink)  # smoothstep: crisper strokes
    ink = np.where(ink >= INK_THRESHOLD, ink, 0.0)
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _free_place(
    shape: tuple[int, ...], taken: list[list[int]], rng: np.random.Generator, tries: int = 20
) -> list[int] | None:
    height, width = shape
    if height > IMAGE_SIZE or width > IMAGE_SIZE:
        return None
    for _ in range(tries):
        x0 = int(rng.integers(IMAGE_SIZE - width + 1))
        y0 = int(rng.integers(IMAGE_SIZE - height + 1))
        box = [x0, y0, x0 + width, y0 + height]
        if all(_overlap(box, other) <= MAX_OVERLAP for other in taken):
            return box
    return None


def _overlap(a: list[int], b: list[int]) -> float:
    """Share of the smaller box that lies in the other."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(width, 0) * max(height, 0) / smaller


def _paint(canvas: np.ndarray, ink: np.ndarray, box: list[int], rng: np.random.Generator) -> None:
    """Blend a random colour that stands out from what is behind the ink into `canvas`."""
    x0, y0, x1, y1 = box
    behind = canvas[y0:y1, x0:x1]
    colours = rng.uniform(0, 255, (32, 3))
    difference = np.abs((colours @ LUMINANCE)[:, None] - (behind @ LUMINANCE)[ink > 0])
    contrast = np.quantile(difference, LOW_CONTRAST_SHARE, axis=1)
    # The first that stands out, else (a background of black and white, say) the best of them.
    best = (
        contrast.argmax() if contrast.max() < MIN_CONTRAST else (contrast >= MIN_CONTRAST).argmax()
    )
    opacity = ink[..., None]
    canvas[y0:y1, x0:x1] = behind * (1 - opacity) + colours[best] * opacity


def _make_split(split: str, count: int, seed: int, paths: SplitPaths) -> CocoDataset:
    glyphs, labels = read_glyphs(split)
    photos = read_photos(split)
    paths.images.mkdir(parents=True, exist_ok=True)
    dataset = CocoDataset(
        CLASS_NAMES, {"description": f"handwritten digits on photographs, {split}, semi-synthetic"}
    )
    for index in tqdm(range(count), split, unit="image", disable=None):
        rng = np.random.default_rng([seed, list(PHOTOS).index(split), index])
        source = int(rng.integers(len(photos)))
        drawing = draw_digits(photos[source], glyphs, labels, rng)
        name = f"{index:05d}.jpg"
        Image.fromarray(drawing.image).save(paths.images / name, **JPEG)
        image_id = dataset.add_image(
            name, IMAGE_SIZE, IMAGE_SIZE, source="/".join(PHOTOS[split][source])
        )
        for box, digit in zip(drawing.boxes, drawing.digits, strict=True):
            dataset.add_box(image_id, box, int(digit))
    dataset.save(paths.json)
    return dataset
