"""Results as COCO json, csv and YOLO's txt."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from retina_plugin.data.coco_json import write_json
from retina_plugin.inference.prediction.class_names import ClassNames
from retina_plugin.inference.prediction.results import Output, Result

CSV_COLUMNS = (
    *("file", "frame", "class", "class_index", "score"),
    *("x0", "y0", "x1", "y1", "width", "height"),
)


class CocoOutput:
    """``predictions.json``, COCO's results, and beside it the ``images.json`` that they refer to.

    Args:
        folder: for both.
        classes: with the category ids.
        writes_images: False where the images' ids are from a json that exists.
    """

    def __init__(self, folder: Path, classes: ClassNames, *, writes_images: bool = True) -> None:
        self._folder = folder
        self._classes = classes
        self._images: list[dict[str, Any]] | None = [] if writes_images else None
        self._results: list[dict[str, Any]] = []

    def add(self, result: Result) -> None:
        """See :class:`Output`."""
        found = result.found
        if self._images is not None:
            size = {"width": found.width, "height": found.height}
            image = {"id": result.image_id, "file_name": result.source.relative, **size}
            if result.frame is not None:
                image |= {"frame": result.frame.index, "time": round(result.frame.time, 4)}
            self._images.append(image)
        for x in found.as_dicts():
            x0, y0, x1, y1 = x["box"]
            self._results.append(
                {
                    "image_id": result.image_id,
                    "category_id": self._classes.ids[x["class_index"]],
                    "bbox": [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)],
                    "score": x["score"],
                }
            )

    def close(self) -> list[tuple[Path, str]]:
        """See :class:`Output`."""
        path = self._folder / "predictions.json"
        write_json(path, self._results)
        written = [(path, "the detections, COCO's result format")]
        if self._images is not None:
            ids_and_names = zip(self._classes.ids, self._classes.names, strict=True)
            categories = [{"id": index, "name": name} for index, name in ids_and_names]
            path = self._folder / "images.json"
            write_json(path, {"images": self._images, "categories": categories})
            written.append((path, "the images and classes that its ids stand for"))
        return written


class CsvOutput:
    """``predictions.csv``: a line a detection, boxes as corners in pixels."""

    def __init__(self, folder: Path, classes: ClassNames) -> None:
        self._path = folder / "predictions.csv"
        folder.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        self._writer.writerow(CSV_COLUMNS)

    def add(self, result: Result) -> None:
        """See :class:`Output`."""
        frame = "" if result.frame is None else result.frame.index
        size = result.found.width, result.found.height
        for x in result.found.as_dicts():
            what = x["class"], x["class_index"], x["score"]
            self._writer.writerow([result.source.relative, frame, *what, *x["box"], *size])

    def close(self) -> list[tuple[Path, str]]:
        """See :class:`Output`."""
        self._file.close()
        return [(self._path, "the detections, a line each")]


class YoloOutput:
    """``labels/<image>.txt``, for an image without detections an empty one, and ``classes.txt``.

    A line is ``class_index centre_x centre_y width height`` in parts of the image's sides, as data
    sets for YOLO have them: there is no place for a score.
    """

    def __init__(self, folder: Path, classes: ClassNames) -> None:
        self._folder = folder
        self._classes = classes

    def add(self, result: Result) -> None:
        """See :class:`Output`."""
        found = result.found
        lines = []
        for label, (x0, y0, x1, y1) in zip(found.classes, found.boxes.tolist(), strict=True):
            width, height = found.width, found.height
            centre = (x0 + x1) / 2 / width, (y0 + y1) / 2 / height
            numbers = *centre, (x1 - x0) / width, (y1 - y0) / height
            lines.append(" ".join([str(label), *(f"{x:.6f}" for x in numbers)]) + "\n")
        path = self._folder / "labels" / f"{result.name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines), encoding="utf-8")

    def close(self) -> list[tuple[Path, str]]:
        """See :class:`Output`."""
        path = self._folder / "classes.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in self._classes.names), encoding="utf-8")
        return [
            (self._folder / "labels", "the boxes, YOLO's txt, without scores"),
            (path, "the classes' names, in the order of their indices"),
        ]


class JsonOutput:
    """All results as one object for a script, in ``content``."""

    def __init__(self) -> None:
        self.content: list[dict[str, Any]] = []

    def add(self, result: Result) -> None:
        """See :class:`Output`."""
        found = result.found
        about: dict[str, Any] = {"file": str(result.source.path)}
        if result.frame is not None:
            about |= {"frame": result.frame.index, "time": round(result.frame.time, 4)}
        size = {"width": found.width, "height": found.height}
        self.content.append(
            {**about, "image_id": result.image_id, **size, "detections": found.as_dicts()}
        )

    def close(self) -> list[tuple[Path, str]]:
        """See :class:`Output`."""
        return []


FORMATS: dict[str, Callable[..., Output]] = {
    "coco": CocoOutput,
    "csv": CsvOutput,
    "yolo": YoloOutput,
}
