"""Where ``DATASETS.COCO`` says that data sets lie."""

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
    """``value`` as a tuple: () for none, and for one its only entry."""
    if isinstance(value, str) and value.startswith("["):  # [a, b] of a command line, unquoted
        with contextlib.suppress(yaml.YAMLError):
            value = yaml.safe_load(value)
    if value is None or value == "":
        return ()
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def located(value: str | Path) -> Path:
    """The path; ``datasets/...`` that is not here is below ``$DETECTRON2_DATASETS``, if set."""
    path, root = Path(value).expanduser(), os.environ.get("DETECTRON2_DATASETS")
    if root and not path.exists() and path.parts[:1] == ("datasets",):
        return Path(root).expanduser().joinpath(*path.parts[1:])
    return path


def declared_places(split: dict[str, Any]) -> dict[str, SplitPaths]:
    """The data sets of a node of ``DATASETS.COCO``, by name, whether their files are there or not.

    Args:
        split: ``NAME``, ``JSON`` and ``IMAGES``, each one or a list; checked when they were
            registered, see ``coco_registration.py``.
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
    """Of a data set that Detectron2's catalog has with its json; None of any other."""
    metadata = MetadataCatalog.get(name) if name in MetadataCatalog else {}
    if not metadata.get("json_file") or not metadata.get("image_root"):
        return None
    return SplitPaths(located(metadata.get("json_file")), located(metadata.get("image_root")))


def record_place(folder: Path, name: str) -> None:
    """Keep in a folder of results which files they are about, for whoever reads them later."""
    place = registered_place(name)
    if place is not None:
        paths = {"json": str(place.json.absolute()), "images": str(place.images.absolute())}
        write_json(folder / RECORD, {"name": name, **paths})


def recorded_place(folder: Path) -> SplitPaths | None:
    """What :func:`record_place` kept; None where it kept nothing that can be read."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return SplitPaths(Path(record["json"]), Path(record["images"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
