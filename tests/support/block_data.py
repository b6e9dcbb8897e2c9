"""Small data sets in COCO's format: coloured blocks on noise, made in a moment."""

from pathlib import Path

import numpy as np
from PIL import Image

from retina_plugin.data.coco_json import CocoDataset, SplitPaths

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 60, 230)}


def write_blocks(
    folder: Path, split: str, images: int, *, size: int = 96, seed: int = 0
) -> SplitPaths:
    """Write ``folder/split.json`` and its images, each of one to three blocks of three classes."""
    rng = np.random.default_rng([seed, images])
    dataset = CocoDataset(list(COLOURS))
    paths = SplitPaths.of(folder, split)
    paths.images.mkdir(parents=True)
    for index in range(images):
        image = rng.integers(60, 160, (size, size, 3), dtype=np.uint8)
        image_id = dataset.add_image(f"{index}.png", size, size)
        for column in range(rng.integers(1, 4)):
            width, height = (int(side) for side in rng.integers(16, 32, 2))
            x0 = column * (size // 3) + int(rng.integers(size // 3 + 1 - width))
            y0 = int(rng.integers(size - height))
            box = (x0, y0, x0 + width, y0 + height)
            label = int(rng.integers(len(COLOURS)))
            image[y0 : y0 + height, x0 : x0 + width] = list(COLOURS.values())[label]
            dataset.add_box(image_id, box, label)
        Image.fromarray(image).save(paths.images / f"{index}.png")
    dataset.save(paths.json)
    return paths


def as_overrides(train: SplitPaths | None, test: SplitPaths | None) -> list[str]:
    """The config keys that name these data, as ``train_net.py`` takes them."""
    overrides = []
    for split, paths in (("TRAIN", train), ("TEST", test)):
        if paths is not None:
            key = f"DATASETS.COCO.{split}"
            overrides += [f"{key}.JSON", str(paths.json), f"{key}.IMAGES", str(paths.images)]
    return overrides
