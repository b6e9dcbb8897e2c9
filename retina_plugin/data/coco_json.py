"""Write data sets in COCO's detection format, atomically, with a manifest.

A generated data set is a folder with a json and a folder of images per split, and a manifest that
is written last: an interrupted preparation has no manifest, so the next call repeats it.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"

logger = logging.getLogger(__name__)


@dataclass
class CocoDataset:
    """A split in COCO's detection format; category ids are 1..K in the order of `class_names`.

    `dropped` counts boxes that were dropped because they were too thin after cropping.
    """

    class_names: list[str]
    info: dict[str, Any] = field(default_factory=dict)
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    dropped: int = 0

    def add_image(self, file_name: str, width: int, height: int, **extra: Any) -> int:
        """Add an image and return its id; `extra` keys (such as its source) go to the record."""
        image_id = len(self.images) + 1
        self.images.append(
            {"id": image_id, "file_name": file_name, "width": width, "height": height, **extra}
        )
        return image_id

    def add_box(
        self, image_id: int, box: Iterable[float], class_index: int = 0, *, crowd: bool = False
    ) -> None:
        """Add an XYXY box in pixels (continuous edges: pixel i spans [i, i + 1))."""
        x0, y0, x1, y1 = (float(v) for v in box)
        self.annotations.append(
            {
                "id": len(self.annotations) + 1,
                "image_id": image_id,
                "category_id": class_index + 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": (x1 - x0) * (y1 - y0),
                "iscrowd": int(crowd),
            }
        )

    def save(self, path: Path) -> None:
        """Write the json atomically."""
        categories = [{"id": i + 1, "name": name} for i, name in enumerate(self.class_names)]
        write_json(
            path,
            {
                "info": self.info,
                "images": self.images,
                "annotations": self.annotations,
                "categories": categories,
            },
        )

    def count(self) -> dict[str, int]:
        """The numbers of images, boxes, crowd boxes (ignored) and dropped boxes."""
        crowd = sum(a["iscrowd"] for a in self.annotations)
        return {
            "images": len(self.images),
            "boxes": len(self.annotations) - crowd,
            "crowd": crowd,
            "dropped": self.dropped,
        }


@dataclass(frozen=True)
class SplitPaths:
    """The paths of a split: its COCO json, and the folder that file names are relative to."""

    json: Path
    images: Path

    @classmethod
    def of(cls, out_dir: Path, split: str) -> SplitPaths:
        """`out_dir/SPLIT.json` and `out_dir/SPLIT/`."""
        return cls(out_dir / f"{split}.json", out_dir / split)


def write_json(path: Path, content: Any) -> None:
    """Write json to a temporary file beside `path`, then rename it: it appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file)
        Path(temporary).chmod(0o644)  # mkstemp gives 0600, which other users could not read
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def make_once(
    out_dir: Path, recipe: dict[str, Any], make_splits: Callable[[], dict[str, CocoDataset]]
) -> None:
    """Call `make_splits` unless `out_dir` already holds the complete result of the same `recipe`.

    Args:
        out_dir: folder of the data set.
        recipe: everything that the result depends on, as json.
        make_splits: writes SPLIT.json and the images in SPLIT/ and returns the splits.
    """
    manifest = _read_manifest(out_dir, recipe)
    if manifest is None:
        logger.info("making %s in %s", recipe["name"], out_dir)
        (out_dir / MANIFEST).unlink(missing_ok=True)  # it would not describe half-replaced files
        splits = make_splits()
        manifest = {
            "recipe": recipe,
            "counts": {split: dataset.count() for split, dataset in splits.items()},
            "files": _file_sizes(out_dir, splits),
        }
        write_json(out_dir / MANIFEST, manifest)
    for split, count in manifest["counts"].items():
        numbers = ", ".join(f"{number} {what}" for what, number in count.items())
        logger.info("%s: %s", out_dir / f"{split}.json", numbers)


def _read_manifest(out_dir: Path, recipe: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest if it is of the same recipe and every file has its recorded size, else None."""
    try:
        manifest = json.loads((out_dir / MANIFEST).read_text(encoding="utf-8"))
        complete = manifest["recipe"] == json.loads(json.dumps(recipe)) and all(
            (out_dir / name).stat().st_size == size for name, size in manifest["files"].items()
        )
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if complete else None


def _file_sizes(out_dir: Path, splits: dict[str, CocoDataset]) -> dict[str, int]:
    names = [f"{split}.json" for split in splits]
    for split, dataset in splits.items():
        names += [f"{split}/{image['file_name']}" for image in dataset.images]
    return {name: (out_dir / name).stat().st_size for name in names}
