"""Two analyses of the same data side by side: what became better, what worse, and where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from retina_plugin.evaluation.analysis.bootstrap import interval
from retina_plugin.evaluation.analysis.breakdowns import ImageResult, Number
from retina_plugin.evaluation.analysis.json_form import from_json, to_json
from retina_plugin.evaluation.analysis.results import Analysis, Interval


@dataclass(kw_only=True)
class Difference:
    """A number in both.

    Attributes:
        name: what it is.
        value: in the first.
        against: in the other.
        change: ``value - against``; None where one of them is not defined.
    """

    name: str
    value: Number
    against: Number
    change: Number


@dataclass(kw_only=True)
class RowDifference:
    """A class, a kind of error or a group in both.

    Attributes:
        name: of it.
        numbers: of it.
    """

    name: str
    numbers: list[Difference]


@dataclass(kw_only=True)
class ImageChange:
    """An image in both, each at its own threshold.

    Attributes:
        value: in the first.
        against: in the other.
        change: of F1.
    """

    value: ImageResult
    against: ImageResult
    change: float


@dataclass(kw_only=True)
class Comparison:
    """What the first has over the other.

    Attributes:
        coco: COCO's numbers that both have.
        intervals: of the changes of AP and AP50, by the resamples of images that both share; empty
            where the two differ in images, seed or number of resamples.
        overall: micro precision, recall and F1 at each one's threshold, best macro F1, calibration.
        classes: AP, AP50, and F1 at the class' best threshold, in the order of the first.
        errors: count at the threshold, and AP lost.
        groups: AP and recall of the groups that both have, named ``field: group``.
        better: images with a higher F1, the largest change first.
        worse: images with a lower F1, the largest change first.
        images_better: how many.
        images_worse: how many.
        notes: what only one of the two has, in sentences.
    """

    coco: list[Difference]
    intervals: dict[str, Interval]
    overall: list[Difference]
    classes: list[RowDifference]
    errors: list[RowDifference]
    groups: list[RowDifference]
    better: list[ImageChange]
    worse: list[ImageChange]
    images_better: int
    images_worse: int
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """The same as dicts and lists, for ``json.dump``."""
        return to_json(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Comparison:
        """What :meth:`to_dict` gave, read back.

        Raises:
            ValueError: a key is missing, unknown or of another type; names it.
        """
        return from_json(cls, content)


def compare(analysis: Analysis, against: Analysis, *, images: int = 12) -> Comparison:
    """Differences of all headline numbers, of classes, kinds of errors, groups and images.

    Classes go together by their names, images by id and file name.

    Args:
        analysis: the first.
        against: the other.
        images: that changed most, for the better and for the worse, at most.
    """
    notes: list[str] = []
    better, worse = _changes(analysis, against, notes)
    classes = _pairs("classes", _by_name(analysis.classes), _by_name(against.classes), notes)
    groups = _pairs("groups", _groups(analysis), _groups(against), notes)
    errors = zip(analysis.errors, against.errors, strict=True)
    return Comparison(
        coco=[
            difference(name, value, against.coco[name])
            for name, value in analysis.coco.items()
            if name in against.coco
        ],
        intervals=_intervals(analysis, against),
        overall=_overall(analysis, against),
        classes=[
            RowDifference(
                name=name,
                numbers=[*_numbers(a, b, "AP", "AP50"), difference("F1", a.best.f1, b.best.f1)],
            )
            for name, a, b in classes
        ],
        errors=[
            RowDifference(name=a.kind, numbers=_numbers(a, b, "count_at_threshold", "dAP"))
            for a, b in errors
        ],
        groups=[
            RowDifference(name=name, numbers=_numbers(a, b, "AP", "recall"))
            for name, a, b in groups
        ],
        better=better[:images],
        worse=worse[:images],
        images_better=len(better),
        images_worse=len(worse),
        notes=notes,
    )


def difference(name: str, value: Number, against: Number) -> Difference:
    """A number in both."""
    defined = value is not None and against is not None
    return Difference(
        name=name, value=value, against=against, change=value - against if defined else None
    )


def _numbers(a: Any, b: Any, *names: str) -> list[Difference]:
    return [difference(name, getattr(a, name), getattr(b, name)) for name in names]


def _overall(analysis: Analysis, against: Analysis) -> list[Difference]:
    one, other = analysis.overall, against.overall
    ece, other_ece = (x.calibration and x.calibration.ECE for x in (analysis, against))
    return [
        *_numbers(one.at_threshold, other.at_threshold, "precision", "recall", "f1"),
        difference("macro f1", one.macro.f1, other.macro.f1),
        difference("threshold", analysis.settings.score_thresh, against.settings.score_thresh),
        difference("ECE", ece, other_ece),
    ]


def _intervals(analysis: Analysis, against: Analysis) -> dict[str, Interval]:
    """Of the changes; the n-th resample of both has the same images."""

    def draws(x: Analysis) -> tuple[Any, ...]:
        return x.settings.seed, x.settings.resamples, [i.image_id for i in x.images]

    if draws(analysis) != draws(against):
        return {}
    both = analysis.intervals.keys() & against.intervals.keys()
    samples = {
        name: (analysis.intervals[name].samples, against.intervals[name].samples)
        for name in analysis.intervals
        if name in both
    }
    return {
        name: interval(np.array(a) - np.array(b))
        for name, (a, b) in samples.items()
        if len(a) == len(b)
    }


def _by_name(rows: Iterable[Any]) -> dict[str, Any]:
    return {x.name: x for x in rows}


def _groups(analysis: Analysis) -> dict[str, Any]:
    return {f"{x.field}: {group.name}": group for x in analysis.groupings for group in x.groups}


def _pairs(
    what: str, mine: dict[Any, Any], others: dict[Any, Any], notes: list[str]
) -> list[tuple[Any, Any, Any]]:
    """What both have, in the order of the first; a note on what only one has."""
    for where, lone in (
        ("first", [x for x in mine if x not in others]),
        ("other", [x for x in others if x not in mine]),
    ):
        if lone:
            names = ", ".join(map(str, lone[:5]))
            notes.append(f"Not compared: {len(lone)} {what} that only the {where} has ({names}).")
    return [(name, x, others[name]) for name, x in mine.items() if name in others]


def _changes(
    analysis: Analysis, against: Analysis, notes: list[str]
) -> tuple[list[ImageChange], list[ImageChange]]:
    """Images that became better and worse, the largest change first."""
    mine, others = ({(x.image_id, x.file_name): x for x in y.images} for y in (analysis, against))
    changes = [
        ImageChange(value=a, against=b, change=a.f1 - b.f1)
        for _, a, b in _pairs("images", mine, others, notes)
    ]
    changes.sort(key=lambda x: (-abs(x.change), -(x.value.objects)))
    return [x for x in changes if x.change > 0], [x for x in changes if x.change < 0]
