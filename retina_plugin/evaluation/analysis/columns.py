"""A COCO json and detections as arrays, checked: what every part of the analysis reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retina_plugin.evaluation.analysis.breakdowns import Id

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
    """

    image: np.ndarray
    label: np.ndarray
    box: np.ndarray
    area: np.ndarray
    crowd: np.ndarray

    def __len__(self) -> int:
        return len(self.image)

    def some(self, rows: np.ndarray) -> Objects:
        """The objects of some rows, by index or by mask."""
        return Objects(**{name: values[rows] for name, values in vars(self).items()})


@dataclass(kw_only=True)
class Detections:
    """Detections, (D,) each, by class, then image, then the highest score first.

    Attributes:
        image: row of the image.
        label: row of the class.
        box: XYWH in pixels, (D, 4).
        area: square pixels.
        score: as it came.
    """

    image: np.ndarray
    label: np.ndarray
    box: np.ndarray
    area: np.ndarray
    score: np.ndarray

    def __len__(self) -> int:
        return len(self.image)

    def some(self, rows: np.ndarray) -> Detections:
        """The detections of some rows, by index or by mask."""
        return Detections(**{name: values[rows] for name, values in vars(self).items()})


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
            image or class, a box, area or score is no finite number.
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


def class_names(columns: Columns) -> list[str]:
    """Names of the classes, with the id where several have the same one, or none."""
    names = [str(x.get("name", "class")) for x in columns.classes]
    times = Counter(names)
    return [
        name if times[name] == 1 and "name" in x else f"{name} (id {x['id']})"
        for name, x in zip(names, columns.classes, strict=True)
    ]


def corners(box: np.ndarray) -> list[float]:
    """XYWH -> XYXY."""
    x, y, width, height = box.tolist()
    return [x, y, x + width, y + height]


def _by_id(rows: list[dict[str, Any]], part: str) -> tuple[list[dict[str, Any]], dict[Id, int]]:
    """The rows by their id, as COCO sorts them, and the row of each id."""
    if any("id" not in x for x in rows):
        raise ValueError(f"ground truth: each of its {part} needs an id; some have none")
    twice = [x for x, count in Counter(x["id"] for x in rows).items() if count > 1]
    if twice:
        raise ValueError(f"ground truth, {part}: id {twice[0]!r} occurs more than once")
    rows = sorted(rows, key=lambda x: (isinstance(x["id"], str), x["id"]))
    return rows, {x["id"]: i for i, x in enumerate(rows)}


def _objects(
    annotations: list[dict[str, Any]], image_row: dict[Id, int], label_row: dict[Id, int]
) -> Objects:
    def name(i: int) -> str:
        return f"ground truth, annotation {annotations[i].get('id', f'number {i}')!r}"

    for i, x in enumerate(annotations):
        for key, known in (("image_id", image_row), ("category_id", label_row)):
            if x.get(key) not in known:
                raise ValueError(f"{name(i)}: {key} {x.get(key)!r} is not in the json")
    box = _boxes(annotations, name)
    own = (box[:, 2] * box[:, 3]).tolist()
    areas = [own[i] if x.get("area") is None else x["area"] for i, x in enumerate(annotations)]
    area = _finite(areas, (len(areas),))
    if area is None:
        i = _first_bad(areas, ())
        raise ValueError(f"{name(i)}: area should be a finite number, is {areas[i]!r}")
    return Objects(
        image=_integers(image_row[x["image_id"]] for x in annotations),
        label=_integers(label_row[x["category_id"]] for x in annotations),
        box=box,
        area=area,
        crowd=np.array([bool(x.get("iscrowd")) for x in annotations], dtype=bool),
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
    every = Detections(
        image=image, label=label, box=box, area=box[:, 2] * box[:, 3], score=score
    ).some(np.lexsort((-score, image, label)))  # stable: equal scores stay as they came
    counts = _ranks(every.image, every.label) < max_detections
    if not counts.all():
        notes.append(
            f"Left out: {np.count_nonzero(~counts)} detections beyond the {max_detections} surest "
            "of their image and class, as COCO does."
        )
    return every.some(counts)


def _name(found: Sequence[dict[str, Any]], i: int) -> str:
    return f"detection of image {found[i]['image_id']!r}, class {found[i]['category_id']!r}"


def _boxes(rows: Sequence[dict[str, Any]], name: Callable[[int], str]) -> np.ndarray:
    """XYWH, (n, 4)."""
    boxes = [x.get("bbox") for x in rows]
    array = _finite(boxes, (len(boxes), 4))
    if array is None:
        i = _first_bad(boxes, (4,))
        raise ValueError(f"{name(i)}: bbox should be four finite numbers (XYWH), is {boxes[i]!r}")
    return array


def _scores(found: Sequence[dict[str, Any]]) -> np.ndarray:
    scores = [x["score"] for x in found]
    array = _finite(scores, (len(scores),))
    if array is None:
        i = _first_bad(scores, ())
        raise ValueError(
            f"{_name(found, i)}: score should be a finite number, is {scores[i]!r}. A model "
            "with NaN in its weights finds such: look at the losses of its training"
        )
    return array


def _finite(values: list[Any], shape: tuple[int, ...]) -> np.ndarray | None:
    """As an array of floats; None where they are no finite numbers of that shape."""
    if not values:
        return np.zeros(shape)
    try:
        array = np.array(values)
    except ValueError:  # of different lengths
        return None
    is_number = array.dtype.kind in "fiu" and array.shape == shape
    return array.astype(float) if is_number and np.isfinite(array).all() else None


def _first_bad(values: list[Any], shape: tuple[int, ...]) -> int:
    return next(i for i, x in enumerate(values) if _finite([x], (1, *shape)) is None)


def _integers(values: Iterable[int]) -> np.ndarray:
    return np.fromiter(values, dtype=np.int64)


def _ranks(image: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Place of each row in its run of equal image and class."""
    starts = np.flatnonzero(np.r_[True, (np.diff(image) != 0) | (np.diff(label) != 0)])
    lengths = np.diff(np.r_[starts, len(image)])
    return np.arange(len(image)) - np.repeat(starts, lengths) if len(image) else np.zeros(0, int)
