"""Paths of the data sets that ``DATASETS.COCO`` declares."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import yaml
from detectron2.data import MetadataCatalog

from retina_plugin.data.coco_json import SplitPaths, write_json

RECORD = "data_set.json"


def as_tuple(value: Any) -> tuple[Any, ...]:
    """``value`` as a tuple: () for None, and ``(value,)`` for a single value."""
    if isinstance(value, str) and value.startswith("["):  # [a, b] of a command line, unquoted
        with contextlib.suppress(yaml.YAMLError):
            value = yaml.safe_load(value)
    if value is None or value == "":
        return ()
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def located(value: str | Path) -> Path:
    """The path; a missing ``datasets/...`` is looked up in ``$DETECTRON2_DATASETS``, if set."""
    path, root = Path(value).expanduser(), os.environ.get("DETECTRON2_DATASETS")
    if root and not path.exists() and path.parts[:1] == ("datasets",):
        return Path(root).expanduser().joinpath(*path.parts[1:])
    return path


def declared_places(split: dict[str, Any]) -> dict[str, SplitPaths]:
    """The paths of a split's data sets by name, whether or not the files exist.

    Args:
        split: ``DATASETS.COCO.<split>`` with ``NAME``, ``JSON`` and ``IMAGES``, each a value or a
            list, which ``coco_registration.py`` has checked.
    """
    names, jsons, images = (as_tuple(split.get(key)) for key in ("NAME", "JSON", "IMAGES"))
    paths = [located(value) for value in jsons]
    folders = [located(value) for value in images]
    if len(folders) == 1:
        folders *= len(paths)
    names = tuple(map(str, names)) or tuple(path.stem for path in paths)
    return {
        name: SplitPaths(json, folder)
        for name, json, folder in zip(names, paths, folders, strict=False)
    }


def registered_place(name: str) -> SplitPaths | None:
    """The paths of a data set whose json is in Detectron2's catalog, else None."""
    metadata = MetadataCatalog.get(name) if name in MetadataCatalog else {}
    if not metadata.get("json_file") or not metadata.get("image_root"):
        return None
    return SplitPaths(located(metadata.get("json_file")), located(metadata.get("image_root")))


def record_place(folder: Path, name: str) -> None:
    """Record in a folder of results the paths of their data set, for the report."""
    place = registered_place(name)
    if place is not None:
        paths = {"json": str(place.json.absolute()), "images": str(place.images.absolute())}
        write_json(folder / RECORD, {"name": name, **paths})


def recorded_place(folder: Path) -> SplitPaths | None:
    """The paths that :func:`record_place` recorded, or None if there are none."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return SplitPaths(Path(record["json"]), Path(record["images"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
