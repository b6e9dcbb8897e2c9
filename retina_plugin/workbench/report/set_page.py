"""What the page shows of one data set: an analysis, its charts and its pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from markupsafe import Markup

from retina_plugin.evaluation.analysis import analyse
from retina_plugin.evaluation.analysis.breakdowns import (
    ErrorKind,
    Id,
    ImageResult,
    Number,
    SizeBin,
)
from retina_plugin.evaluation.analysis.comparison import Comparison, compare
from retina_plugin.evaluation.analysis.image_results import worst_images
from retina_plugin.evaluation.analysis.results import Analysis, ClassResult, Interval
from retina_plugin.workbench.report.charts import Curves, precision_recall, reliability
from retina_plugin.workbench.report.confusion import ConfusionView, view_confusion
from retina_plugin.workbench.report.evaluated_sets import EvaluatedSet

MOST_LISTED = 500  # images of the table

TILES = {
    "AP50": "AP50",
    "AP75": "AP75",
    "APs": "AP small",
    "APm": "AP medium",
    "APl": "AP large",
}


@dataclass(frozen=True)
class Judged:
    """An evaluated set, its files read and analysed."""

    source: EvaluatedSet
    truth: dict[str, Any]
    found: list[dict[str, Any]]
    analysis: Analysis


def judge(source: EvaluatedSet, **options: Any) -> Judged:
    """Read the files of a set and analyse them.

    Args:
        source: whose ground truth is there, see ``EvaluatedSet.problem``.
        options: of ``analyse``.

    Raises:
        ValueError: a file is no json, or is not what it should be; names it.
    """
    assert source.json is not None
    truth, found = _read(source.json), _read(source.detections)
    if not isinstance(found, list):
        raise ValueError(f"{source.detections}: expected a list of detections in COCO's format")
    try:
        analysis = analyse(truth, found, **options)
    except ValueError as error:
        raise ValueError(f"{source.json}, {source.detections}: {error}") from error
    return Judged(source, truth, found, analysis)


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: cannot be read: {error}") from error


@dataclass(frozen=True)
class ErrorBar:
    """A kind of error as a bar."""

    kind: str
    meaning: str
    style: str
    percent: float
    dAP: Number
    count: int


@dataclass(frozen=True)
class ReliabilityView:
    """The chart of a calibration."""

    chart: Markup


@dataclass
class SetPage:
    """One data set's part of the page.

    Attributes:
        anchor: what links lead to.
        analysis: its numbers.
        comparison: with another run, on the same set.
        notes: what the reader must know.
        pictures: titles, and images drawn.
        pictures_lead: what is drawn.
        no_pictures: why there are none.
    """

    anchor: str
    name: str
    analysis: Analysis
    comparison: Comparison | None
    curves: Curves | None
    confusion: ConfusionView
    errors: list[ErrorBar]
    notes: list[str]
    calibration: ReliabilityView | None
    pictures: list[tuple[str, list[Any]]] = field(default_factory=list)
    pictures_lead: str = ""
    no_pictures: str = ""

    @property
    def compared(self) -> bool:
        """Whether there is another run's analysis."""
        return self.comparison is not None

    @property
    def tiles(self) -> list[tuple[str, str]]:
        """The numbers beside AP, with their titles."""
        recalls = [name for name in self.analysis.coco if name.startswith("AR")]
        counted = {name: f"AR, {name[2:]} det." for name in recalls if name[2:].isdigit()}
        sized = {"ARs": "AR small", "ARm": "AR medium", "ARl": "AR large"}
        return list({**TILES, **counted, **sized}.items())

    @property
    def sections(self) -> list[tuple[str, str]]:
        """Anchors and titles."""
        every = {
            "classes": "Classes",
            "curves": "Curves" if self.curves else "",
            "confusion": "Confusion",
            "errors": "Errors",
            "sizes": "Sizes" if self.sizes else "",
            "groups": "Groups" if self.analysis.groupings else "",
            "calibration": "Calibration",
            "images": "Images",
        }
        return [(key, title) for key, title in every.items() if title]

    @property
    def sizes(self) -> list[tuple[str, list[SizeBin]]]:
        """The sizes that have objects, with their titles."""
        parts = (("COCO's sizes", self.analysis.sizes), ("Finer", self.analysis.octaves))
        return [
            (title, [x for x in bins if x.objects])
            for title, bins in parts
            if any(x.objects for x in bins)
        ]

    @property
    def listed(self) -> list[ImageResult]:
        """The images of the table, the worst first."""
        return [self._images[x] for x in worst_images(self.analysis.images, MOST_LISTED)]

    @property
    def listed_title(self) -> str:
        """How many of the images the table has."""
        every = len(self.analysis.images)
        return (
            f"All images ({every:,})"
            if every <= MOST_LISTED
            else f"The {MOST_LISTED} worst images of {every:,}"
        )

    def delta(self, metric: str) -> Number:
        """How much better than the other run by one of COCO's twelve."""
        return self._changes.get(metric)

    @property
    def f1_delta(self) -> Number:
        """How much better than the other run by the best F1."""
        return self._changes.get("f1")

    @property
    def delta_interval(self) -> Interval | None:
        """Of the change of AP, where the data allow one."""
        return self.comparison.intervals.get("AP") if self.comparison else None

    def class_delta(self, of: ClassResult, metric: str) -> Number:
        """How much better a class is than in the other run."""
        return self._class_changes.get(of.name, {}).get(metric)

    def error_delta(self, kind: str) -> Number:
        """How much more AP the kind of error costs than in the other run."""
        rows = self.comparison.errors if self.comparison else []
        return next((x.change for row in rows if row.name == kind for x in row.numbers[1:]), None)

    def image_delta(self, of: ImageResult) -> Number:
        """How much better an image's F1 is than in the other run."""
        return self._image_changes.get(of.image_id)

    @cached_property
    def _images(self) -> dict[Id, ImageResult]:
        return {x.image_id: x for x in self.analysis.images}

    @cached_property
    def _changes(self) -> dict[str, Number]:
        if self.comparison is None:
            return {}
        return {x.name: x.change for x in (*self.comparison.coco, *self.comparison.overall)}

    @cached_property
    def _class_changes(self) -> dict[str, dict[str, Number]]:
        rows = self.comparison.classes if self.comparison else []
        return {row.name: {x.name: x.change for x in row.numbers} for row in rows}

    @cached_property
    def _image_changes(self) -> dict[Id, float]:
        if self.comparison is None:
            return {}
        changed = [*self.comparison.better, *self.comparison.worse]
        same = dict.fromkeys(self._images, 0.0)
        return same | {x.value.image_id: x.change for x in changed}


def view_set(judged: Judged, *, anchor: str, other: Judged | None, other_name: str) -> SetPage:
    """The charts and tables of a set; without its pictures."""
    analysis = judged.analysis
    against = other.analysis if other else None
    every = len(analysis.images)
    comparison = compare(analysis, against, images=every) if against is not None else None
    calibration = analysis.calibration
    return SetPage(
        anchor=anchor,
        name=judged.source.name,
        analysis=analysis,
        comparison=comparison,
        curves=precision_recall(analysis, against, other_name),
        confusion=view_confusion(analysis.confusion),
        errors=_errors(analysis.errors),
        notes=[*analysis.notes, *(comparison.notes if comparison else [])],
        calibration=(
            ReliabilityView(reliability(calibration))
            if calibration is not None and calibration.detections
            else None
        ),
    )


def _errors(kinds: Sequence[ErrorKind]) -> list[ErrorBar]:
    most = max((x.dAP or 0.0 for x in kinds), default=0.0) or 1.0
    return [
        ErrorBar(
            kind=x.kind,
            meaning=x.meaning,
            style="c4" if x.kind == "missed" else "c2" if x.kind == "background" else "",
            percent=round(100 * (x.dAP or 0.0) / most, 1),
            dAP=x.dAP,
            count=x.count_at_threshold,
        )
        for x in kinds
    ]
