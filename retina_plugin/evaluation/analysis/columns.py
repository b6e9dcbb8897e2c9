"""A COCO json and detections as arrays, checked: what every part of the analysis reads."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retina_plugin.evaluation.analysis.results import Id

PARTS = ("images", "annotations", "categories")


@dataclass(kw_only=True)
class Objects:
    """Ground truth, (M,) each, in the order of the json.

    Attributes:
        image: row of the image.
        label: row of the class.
        box: XYWH in pixels, (M, 4).
        area: square pixels, of the mask where the json has it.
        crowd: bool; a crowd is ignored, and a detection inside of it as well.
        row: of the annotation in the json.
    """

    image: np.ndarray
    label: np.ndarray
    box: np.ndarray
    area: np.ndarray
    crowd: np.ndarray
    row: np.ndarray

    def __len__(self) -> int:
        return len(self.image)


@dataclass(kw_only=True)
class Detections:
    """Detections, (D,) each, by class, then image, then the surest first.

    Attributes:
        image: row of the image.
        label: row of the class.
        box: XYWH in pixels, (D, 4).
        area: square pixels.
        score: as it came.
        rank: 0 for the surest of its image and class.
        by_score: indices of all by class, then the surest first; equal scores by image, as COCO
            has them.
    """

    image: np.ndarray
    label: np.ndarray
    box: np.ndarray
    area: np.ndarray
    score: np.ndarray
    rank: np.ndarray
    by_score: np.ndarray

    def __len__(self) -> int:
        return len(self.image)


@dataclass(kw_only=True)
class Columns:
    """The whole case.

    Attributes:
        images: of the json, by id.
        classes: of the json, by id.
        annotations: of the json, as they stand there.
        objects: all annotations that can count.
        detections: all detections that can count.
        notes: what was left out, in sentences.
    """

    images: list[dict[str, Any]]
    classes: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    objects: Objects
    detections: Detections
    notes: list[str]


def read_columns(
    truth: dict[str, Any], found: Sequence[dict[str, Any]], *, max_detections: int
) -> Columns:
    """Check a case and turn it into arrays; nothing of the input is changed.

    Args:
        truth: the content of a COCO json. Ids may be numbers or texts; annotations without ``area``
            get that of their box, those without ``iscrowd`` are objects.
        found: detections in COCO's result format.
        max_detections: how many of an image and class count, the surest first.

    Raises:
        ValueError: a part or key is missing, an id stands twice, an annotation names an unknown
            image or class, a box or score is no finite number.
    """
    missing = [part for part in PARTS if not isinstance(truth.get(part), list)]
    if missing:
        raise ValueError(
            f"ground truth: expected the content of a COCO json, lists {', '.join(PARTS)}; "
            f"there is no {' and no '.join(missing)}"
        )
    images, image_row = _by_id(truth["images"], "images")
    classes, label_row = _by_id(truth["categories"], "categories")
    notes: list[str] = []
    return Columns(
        images=images,
        classes=classes,
        annotations=truth["annotations"],
        objects=_objects(truth["annotations"], image_row, label_row),
        detections=_detections(found, image_row, label_row, max_detections, notes),
        notes=notes,
    )


def _by_id(rows: list[dict[str, Any]], part: str) -> tuple[list[dict[str, Any]], dict[Id, int]]:
    """The rows by their id, as COCO sorts them, and the row of each id."""
    if any("id" not in x for x in rows):
        raise ValueError(f"ground truth: each of its {part} needs an id; some have none")
    twice = [x for x, count in Counter(x["id"] for x in rows).items() if count > 1]
    if twice:
        raise ValueError(f"ground truth, {part}: id {twice[0]!r} stands more than once")
    rows = sorted(rows, key=lambda x: (isinstance(x["id"], str), x["id"]))
    return rows, {x["id"]: i for i, x in enumerate(rows)}


def _objects(
    annotations: list[dict[str, Any]], image_row: dict[Id, int], label_row: dict[Id, int]
) -> Objects:
    for i, x in enumerate(annotations):
        name = f"ground truth, annotation {x.get('id', f'number {i}')!r}"
        for key, known in (("image_id", image_row), ("category_id", label_row)):
            if x.get(key) not in known:
                raise ValueError(f"{name}: {key} {x.get(key)!r} is not in the json")
    box = _boxes(annotations, lambda i: f"ground truth, annotation {annotations[i].get('id')!r}")
    area = [x.get("area") for x in annotations]
    return Objects(
        image=_integers(image_row[x["image_id"]] for x in annotations),
        label=_integers(label_row[x["category_id"]] for x in annotations),
        box=box,
        area=np.array(
            [w * h if a is None else a for a, (_, _, w, h) in zip(area, box, strict=True)]
        )
        if annotations
        else np.zeros(0),
        crowd=np.array([bool(x.get("iscrowd")) for x in annotations], dtype=bool),
        row=np.arange(len(annotations)),
    )


def _detections(
    found: Sequence[dict[str, Any]],
    image_row: dict[Id, int],
    label_row: dict[Id, int],
    max_detections: int,
    notes: list[str],
) -> Detections:
    for i, x in enumerate(found):
        lacking = [k for k in ("image_id", "category_id", "bbox", "score") if k not in x]
        if lacking:
            raise ValueError(f"detection {i}: no {', no '.join(lacking)}")
    for key, known, what in (
        ("image_id", image_row, "images"),
        ("category_id", label_row, "classes"),
    ):
        strange = Counter(x[key] for x in found if x[key] not in known)
        if strange:
            notes.append(
                f"Left out: {strange.total()} detections of {len(strange)} {what} that the ground "
                f"truth does not have ({key} {', '.join(map(repr, list(strange)[:5]))})."
            )
            found = [x for x in found if x[key] in known]
    box = _boxes(found, lambda i: _name(found, i))
    score = _scores(found)
    image = _integers(image_row[x["image_id"]] for x in found)
    label = _integers(label_row[x["category_id"]] for x in found)
    order = np.lexsort((-score, image, label))  # stable: equal scores stay as they came
    image, label, box, score = image[order], label[order], box[order], score[order]
    rank = _ranks(image, label)
    counts = rank < max_detections
    if not counts.all():
        notes.append(
            f"Left out: {np.count_nonzero(~counts)} detections beyond the {max_detections} surest "
            "of their image and class, as COCO does."
        )
    image, label, box, score, rank = (x[counts] for x in (image, label, box, score, rank))
    return Detections(
        image=image,
        label=label,
        box=box,
        area=box[:, 2] * box[:, 3],
        score=score,
        rank=rank,
        by_score=np.lexsort((-score, label)),
    )


def _name(found: Sequence[dict[str, Any]], i: int) -> str:
    return f"detection of image {found[i]['image_id']!r}, class {found[i]['category_id']!r}"


def _boxes(rows: Sequence[dict[str, Any]], name: Any) -> np.ndarray:
    """XYWH, (n, 4)."""
    for i, x in enumerate(rows):
        box = x.get("bbox")
        if not (isinstance(box, (list, tuple)) and len(box) == 4 and all(map(_is_finite, box))):
            raise ValueError(f"{name(i)}: bbox should be four finite numbers (XYWH), is {box!r}")
    return np.array([x["bbox"] for x in rows], dtype=float).reshape(-1, 4)


def _scores(found: Sequence[dict[str, Any]]) -> np.ndarray:
    for i, x in enumerate(found):
        if not _is_finite(x["score"]):
            raise ValueError(
                f"{_name(found, i)}: score should be a finite number, is {x['score']!r}. A model "
                "with NaN in its weights finds such: look at the losses of its training"
            )
    return np.array([x["score"] for x in found], dtype=float)


def _is_finite(x: Any) -> bool:
    return isinstance(x, (int, float)) and math.isfinite(x)


def _integers(values: Any) -> np.ndarray:
    return np.fromiter(values, dtype=np.int64)


def _ranks(image: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Place of each row in its run of equal image and class."""
    starts = np.flatnonzero(np.r_[True, (np.diff(image) != 0) | (np.diff(label) != 0)])
    lengths = np.diff(np.r_[starts, len(image)])
    return np.arange(len(image)) - np.repeat(starts, lengths) if len(image) else np.zeros(0, int)
