"""Coverage by level, class, size and ratio, as rows and as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from retina_plugin.workbench.anchors.coverage import Coverage

WORST_CLASSES = 20
MOST_SIDES = 3  # named one by one
LOW = 0.4  # below, the paper's assigner makes background
HALF = 0.5
COCO_SIZES = {"small": 32.0, "medium": 96.0}  # sides in the file's pixels; what is larger is large
# height / width; 0.8 to 1.25 is square to the eye
RATIO_EDGES = (0.25, 0.5, 0.8, 1.25, 2.0, 4.0)
CUT = 0.99  # of a box in the crop; less is a part of it


@dataclass(frozen=True)
class Row:
    """Some of the boxes.

    Attributes:
        name: which.
        boxes: how many.
        mean_iou: of their best anchors.
        recall_40, recall_50: shares of them that some anchor meets at IoU 0.4 and 0.5.
        missed: how many no anchor reaches at the assigner's threshold.
    """

    name: str
    boxes: int
    mean_iou: float
    recall_40: float
    recall_50: float
    missed: int


def row(cover: Coverage, name: str, mask: np.ndarray | None = None) -> Row:
    """The boxes of a ``(M,)`` mask, or all."""
    iou = cover.iou if mask is None else cover.iou[mask]
    return Row(
        name=name,
        boxes=len(iou),
        mean_iou=_mean(iou),
        recall_40=_mean(iou >= LOW),
        recall_50=_mean(iou >= HALF),
        missed=int((iou < cover.threshold).sum()),
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def by_level(cover: Coverage) -> list[Row]:
    """By the level of the best anchor; levels without boxes are listed too."""
    return [
        row(
            cover, f"{name}, stride {stride}, anchors {_sides(cells.numpy())}", cover.level == level
        )
        for level, (name, stride, cells) in enumerate(
            zip(cover.grid.names, cover.grid.strides, cover.grid.cells, strict=True)
        )
    ]


def _sides(cells: np.ndarray) -> str:
    """The square roots of the anchors' areas, each once."""
    sides = np.unique(np.sqrt((cells[:, 2:] - cells[:, :2]).prod(axis=1)).round(1))
    if len(sides) > MOST_SIDES:
        return f"{sides[0]:g} to {sides[-1]:g}"
    return " ".join(f"{side:g}" for side in sides)


def by_class(cover: Coverage) -> list[Row]:
    """The classes that have boxes, the one with the largest share of missed ones first."""
    ids = cover.seen.class_id
    rows = [row(cover, _name(cover, i), ids == i) for i in np.unique(ids)]
    return sorted(rows, key=lambda r: (-r.missed / r.boxes, r.mean_iou))


def _name(cover: Coverage, class_id: int) -> str:
    names = cover.seen.class_names
    return names[class_id] if class_id < len(names) else str(class_id)


def by_coco_size(cover: Coverage) -> list[Row]:
    """COCO's small, medium and large, by the box's area in the file."""
    sides = np.sqrt(cover.seen.file_area)
    place = np.digitize(sides, list(COCO_SIZES.values()))
    names = [*(f"{name}, under {side:g} px" for name, side in COCO_SIZES.items()), "large"]
    return _groups(cover, place, names)


def by_octave(cover: Coverage) -> list[Row]:
    """By the square root of the area in pixels of the network's input, doubling each time."""
    octave = np.floor(np.log2(cover.side)).astype(int)
    low = octave.min()
    names = [f"{2.0**i:g} to {2.0 ** (i + 1):g} px" for i in range(low, octave.max() + 1)]
    return _groups(cover, octave - low, names)


def by_ratio(cover: Coverage) -> list[Row]:
    """By height / width, as ``ASPECT_RATIOS`` has it."""
    names = [f"under {RATIO_EDGES[0]:g}"]
    names += [f"{a:g} to {b:g}" for a, b in pairwise(RATIO_EDGES)]
    names += [f"{RATIO_EDGES[-1]:g} and over"]
    return _groups(cover, np.digitize(cover.ratio, RATIO_EDGES), names)


def by_crop(cover: Coverage) -> list[Row]:
    """Whole boxes, and parts of boxes that a random crop or a tile cut; none where nothing is."""
    cut = cover.seen.visible < CUT
    return _groups(cover, cut.astype(int), ["whole", "cut by a crop"]) if cut.any() else []


def _groups(cover: Coverage, place: np.ndarray, names: Sequence[str]) -> list[Row]:
    rows = [row(cover, name, place == i) for i, name in enumerate(names)]
    return [x for x in rows if x.boxes]


def tables(cover: Coverage) -> dict[str, list[Row]]:
    """Every grouping by its title, all boxes last."""
    groups = {
        "level of the best anchor": by_level(cover),
        "class": by_class(cover),
        "size in the file": by_coco_size(cover),
        "size in the network": by_octave(cover),
        "height / width": by_ratio(cover),
        "seen": by_crop(cover),
        "all": [row(cover, "all boxes")],
    }
    return {title: rows for title, rows in groups.items() if rows}


def as_text(cover: Coverage) -> str:
    """One table."""
    groups = tables(cover)
    width = 2 + max(len(x.name) for rows in groups.values() for x in rows)
    heads = f"{'boxes':>8} {'mean IoU':>9} {'IoU>=0.4':>9} {'IoU>=0.5':>9} {'missed':>8}"
    lines = [f"{'':{width}} {heads}"]
    for title, rows in groups.items():
        more = len(rows) > WORST_CLASSES and title == "class"
        if title != "all":
            lines.append(f"{title}, worst {WORST_CLASSES} of {len(rows)}" if more else title)
        indent = "" if title == "all" else "  "
        for x in rows[:WORST_CLASSES] if more else rows:
            lines.append(f"{indent + x.name:{width}} {_numbers(x)}".rstrip())
    return "\n".join(lines)


def _numbers(x: Row) -> str:
    if not x.boxes:
        return f"{0:8}"
    shares = f"{x.recall_40:9.1%} {x.recall_50:9.1%}"
    return f"{x.boxes:8} {x.mean_iou:9.2f} {shares} {x.missed:8}"


def as_dict(cover: Coverage) -> dict[str, Any]:
    """The same for a script; a group of no box has no shares (None)."""
    return {
        "threshold": cover.threshold,
        "assigner": cover.assigner,
        "threshold_is_yardstick": cover.is_yardstick,
        "notes": list(cover.notes),
        **{title: _plain(rows) for title, rows in tables(cover).items()},
    }


def _plain(rows: Iterable[Row]) -> list[dict[str, Any]]:
    return [{k: None if v != v else v for k, v in asdict(x).items()} for x in rows]
