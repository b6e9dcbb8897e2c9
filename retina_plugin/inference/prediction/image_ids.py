"""The ids of images and categories in a COCO json, for results that refer to it."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

from retina_plugin.inference.prediction.class_names import ClassNames


class CocoIds:
    """Ids of a json by file name, or counted from 1.

    Args:
        path: a COCO json with ``images`` and perhaps ``categories``; None to count.

    Raises:
        ValueError: it cannot be read, or has no images with ``id`` and ``file_name``.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._by_name: dict[str, Any] = {}
        self._categories: list[dict[str, Any]] = []
        self._next = 1
        if path is None:
            return
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            self._by_name = {str(PurePosixPath(x["file_name"])): x["id"] for x in content["images"]}
            self._categories = list(content.get("categories") or [])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f'{path}: is no COCO json with "images" that have "id" and "file_name": '
                f"{type(error).__name__}: {error}"
            ) from error

    def id_of(self, path: Path) -> Any:
        """The id of an image file; without a json the next number.

        Raises:
            KeyError: the json has no such image.
        """
        if self.path is None:
            return self.next_id()
        parts = Path(path).absolute().parts
        for start in range(len(parts)):  # the longest name first
            name = "/".join(parts[start:])
            if name in self._by_name:
                return self._by_name[name]
        raise KeyError(path)

    def next_id(self) -> int:
        """1, then 2, and so on: for what no json knows."""
        self._next += 1
        return self._next - 1

    def classes(self, known: ClassNames) -> ClassNames:
        """The detector's classes with the json's category ids.

        Raises:
            ValueError: the json's categories are others.
        """
        if not self._categories:
            return known
        ordered = sorted(self._categories, key=lambda category: category["id"])
        ids = {category["name"]: category["id"] for category in ordered}
        if set(known.names) <= ids.keys():
            return known._replace(ids=tuple(ids[name] for name in known.names))
        if not known.source and len(ordered) == len(known.names):  # their order is Detectron2's
            names = tuple(category["name"] for category in ordered)
            return ClassNames(names, tuple(ids[name] for name in names), str(self.path))
        lacking = [name for name in known.names if name not in ids]
        raise ValueError(
            f"{self.path}: its categories are {', '.join(ids)}, without the detector's "
            f"{', '.join(lacking)}: give the json of the same classes"
        )
