"""Read a COCO json once and report everything that is wrong with it.

Detectron2 and pycocotools answer most of these mistakes with a bare ``KeyError`` or ``assert``,
some only in the first evaluation, and some not at all.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from logging import ERROR, WARNING
from pathlib import Path
from typing import Any, NamedTuple

from retina_plugin.data.findings import Finding, Findings

MISSING = object()  # the value of a missing key
SINGULAR = {"images": "image", "annotations": "annotation", "categories": "category"}
SPLITS = ("TRAIN", "TEST")
SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = 80


@dataclass(frozen=True)
class CocoFile:
    """The classes of a COCO json and the findings about it.

    Attributes:
        class_ids: category id -> contiguous class index, in the order of ids, as in Detectron2.
        class_names: the class names in the same order.
        findings: the findings that matter for training (TRAIN) and for evaluation (TEST).
    """

    class_ids: dict[int, int]
    class_names: tuple[str, ...]
    findings: dict[str, tuple[Finding, ...]]


def read_coco_file(path: Path) -> CocoFile:
    """Read and check a json; the result is cached until the file changes."""
    try:
        state = path.stat()
    except OSError as error:
        reading = _Reading(path.absolute())
        advice = "Correct the path. Detectron2's built-in data sets are in $DETECTRON2_DATASETS."
        reading.add(SPLITS, ERROR, f"cannot be read: {error.strerror}", advice)
        return reading.result()
    return _read(path.resolve(), state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=64)
def _read(path: Path, mtime_ns: int, size: int) -> CocoFile:
    reading = _Reading(path)
    content = reading.load(size)
    if content is not None:
        parts = {part: reading.entries(content, part) for part in SINGULAR}
        if not reading.findings["TEST"].has_errors():
            reading.check(parts)
            return reading.result(parts["categories"])
    return reading.result()


class Ids(NamedTuple):
    """The ids that a json defines."""

    images: set[Any]
    categories: set[Any]


class Rule(NamedTuple):
    """A rule for the value of a key of every image, annotation or category."""

    part: str
    key: str
    holds: Callable[[Any, Ids], bool]
    expected: str
    advice: str
    level: int = ERROR
    splits: tuple[str, ...] = SPLITS


def _is_number(value: Any) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _is_whole(value: Any) -> bool:
    return _is_number(value) and value == int(value)


def _key(value: Any) -> Any:
    """``value`` if it can be an id, else None."""
    return value if isinstance(value, str) or _is_whole(value) else None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(_is_number(x) for x in value)


def _keeps_annotation(segmentation: Any) -> bool:
    """Whether ``load_coco_json`` keeps the annotation: no polygons, or one of 3 points or more."""
    if not isinstance(segmentation, list) or not segmentation:
        return True
    return any(isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0 for p in segmentation)


SIDE = "a number of pixels above 0"
RULES = (
    Rule("categories", "id", lambda v, _: _is_whole(v), "a whole number", "Number the categories."),
    Rule("categories", "name", lambda v, _: _is_text(v), "a string", "Name every category."),
    Rule("images", "id", lambda v, _: _key(v) is not None, "a number or string", "Add it."),
    Rule("images", "file_name", lambda v, _: _is_text(v), "a path below IMAGES", "Add it."),
    Rule("images", "width", lambda v, _: _is_number(v) and v > 0, SIDE, "Add the image's width."),
    Rule("images", "height", lambda v, _: _is_number(v) and v > 0, SIDE, "Add the image's height."),
    Rule("annotations", "id", lambda v, _: _is_whole(v), "a whole number", "Number them from 1."),
    Rule(
        "annotations",
        "image_id",
        lambda v, ids: _key(v) is not None and v in ids.images,
        "the id of one of the images",
        "Add the image or remove the annotation.",
    ),
    Rule(
        "annotations",
        "category_id",
        lambda v, ids: _key(v) is not None and v in ids.categories,
        "the id of one of the categories",
        "Add the category or correct the id.",
    ),
    Rule(
        "annotations",
        "bbox",
        lambda v, _: _is_box(v),
        "4 finite numbers [x, y, width, height] in pixels",
        "Correct or remove the annotation.",
    ),
    Rule(
        "annotations",
        "iscrowd",
        lambda v, _: v in (0, 1, MISSING),
        "0 or 1",
        "Write 1 for a region to ignore, 0 for an object.",
    ),
    Rule(
        "annotations",
        "ignore",
        lambda v, _: v in (0, MISSING),
        "0 or absent (Detectron2 does not support it)",
        "Write iscrowd: 1 instead for a region to ignore.",
    ),
    Rule(
        "annotations",
        "segmentation",
        lambda v, _: _keeps_annotation(v),
        "polygons of 3 points or more",
        "Detectron2 drops these annotations with their boxes: remove the key to keep the box.",
        WARNING,
    ),
    # pycocotools needs these in the first evaluation, which may be hours after the start.
    Rule(
        "annotations",
        "area",
        lambda v, _: _is_number(v),
        "a number of square pixels, which COCO's evaluation needs",
        "Write width * height of the bbox where there is no segmentation.",
        splits=("TEST",),
    ),
    Rule(
        "annotations",
        "iscrowd",
        lambda v, _: v is not MISSING,
        "present, as COCO's evaluation needs it",
        "Write 0 for an object.",
        splits=("TEST",),
    ),
    Rule(
        "annotations",
        "id",
        lambda v, _: v != 0,
        "other than 0, which pycocotools takes for 'not matched'",
        "Such an object always counts as missed: number annotations from 1.",
        WARNING,
        splits=("TEST",),
    ),
)


class _Reading:
    """A json that is being read, with its findings so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.findings = {split: Findings() for split in SPLITS}

    def add(
        self,
        splits: tuple[str, ...],
        level: int,
        what: str,
        advice: str,
        example: str | None = None,
    ) -> None:
        for split in splits:
            self.findings[split].add(level, str(self.path), what, advice, example)

    def load(self, size: int) -> dict[str, Any] | None:
        """Load the json; None if it is not valid."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            cut = isinstance(error, json.JSONDecodeError) and (
                "Unterminated" in error.msg or error.pos >= len(error.doc.rstrip())
            )
            advice = "It is truncated: copy or write it again." if cut else "Write it again."
            self.add(SPLITS, ERROR, f"is not valid json ({size} bytes): {error}", advice)
            return None
        if not isinstance(content, dict):
            what = f"must be an object with {', '.join(SINGULAR)}; it is {_short(content)}"
            self.add(SPLITS, ERROR, what, "Use a json in COCO's object detection format.")
            return None
        return content

    def entries(self, content: dict[str, Any], part: str) -> list[dict[str, Any]]:
        """The objects in a part's list; add findings for a missing list and for other entries."""
        if part == "annotations" and part not in content:
            what = 'has no "annotations"'
            self.add(("TRAIN",), ERROR, what, "Use a json with annotations.")
            self.add(("TEST",), WARNING, what, "Detections are written, but AP cannot be computed.")
            return []
        entries = content.get(part, MISSING)
        if not isinstance(entries, list) or (part == "categories" and not entries):
            what = f'must have "{part}", a list of objects; it is {_short(entries)}'
            keys = ", ".join(map(str, content)) or "none"
            self.add(SPLITS, ERROR, what, f"The json's keys are: {keys}.")
            return []
        objects = [entry for entry in entries if isinstance(entry, dict)]
        if len(objects) < len(entries):
            odd = next(entry for entry in entries if not isinstance(entry, dict))
            what = f'must have objects in "{part}"; {len(entries) - len(objects)} of its entries '
            self.add(SPLITS, ERROR, f"{what} are not, the first is {_short(odd)}", "Correct them.")
        return objects

    def check(self, parts: dict[str, list[dict[str, Any]]]) -> None:
        """Apply the rules to every entry."""
        ids = Ids(*({_key(x.get("id")) for x in parts[part]} for part in Ids._fields))
        for rule in RULES:
            what = f"{rule.part} whose {rule.key} is not {rule.expected}"
            for index, entry in enumerate(parts[rule.part]):
                value = entry.get(rule.key, MISSING)
                if not rule.holds(value, ids):
                    example = f"{_name(rule.part, index, entry)} has {rule.key} {_short(value)}"
                    self.add(rule.splits, rule.level, what, rule.advice, example)
        for part, key in (*((part, "id") for part in SINGULAR), ("categories", "name")):
            # The popular minival jsons of 2014 share a few annotation ids; Detectron2 accepts that
            known_flaw = part == "annotations" and "minival" in self.path.name
            level = WARNING if known_flaw else ERROR
            for value, count in Counter(_key(entry.get(key)) for entry in parts[part]).items():
                if count > 1 and value is not None:
                    what = f"{part} that share their {key}"
                    example = f"{key} {_short(value)} {count} times"
                    self.add(SPLITS, level, what, f"Give each its own {key}.", example)

    def result(self, categories: Iterable[dict[str, Any]] = ()) -> CocoFile:
        """The classes and findings."""
        classes = sorted(
            (category["id"], str(category.get("name")))
            for category in categories
            if _is_whole(category.get("id"))
        )
        return CocoFile(
            class_ids={class_id: index for index, (class_id, _) in enumerate(classes)},
            class_names=tuple(name for _, name in classes),
            findings={split: tuple(found) for split, found in self.findings.items()},
        )


def _name(part: str, index: int, entry: dict[str, Any]) -> str:
    """An entry's name in messages: its id or position, and its image or name."""
    number = entry["id"] if _key(entry.get("id")) is not None else f"number {index + 1}"
    belongs = {
        "images": f" ({entry.get('file_name', 'no file_name')})",
        "annotations": f" of image {_short(entry.get('image_id', MISSING))}",
        "categories": f" ({entry.get('name', 'no name')})",
    }
    return f"{SINGULAR[part]} {number}{belongs[part]}"


def _short(value: Any) -> str:
    return "missing" if value is MISSING else SHORT.repr(value)
