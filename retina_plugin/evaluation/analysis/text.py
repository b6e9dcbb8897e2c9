"""An analysis, and a comparison of two, in one screen of a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from tabulate import tabulate

from retina_plugin.evaluation.analysis.breakdowns import Number
from retina_plugin.evaluation.analysis.comparison import (
    Comparison,
    Difference,
    ImageChange,
    RowDifference,
)
from retina_plugin.evaluation.analysis.results import Analysis, ClassResult, OperatingPoint

MOST_CLASSES = 10  # rows of the table; of more the best and the worst are shown
MOST_IMAGES = 3
MOST_CONFUSIONS = 3


def as_text(analysis: Analysis) -> str:
    """COCO's numbers, the threshold, classes, mistakes, sizes, groups and the worst images.

    Fractions are in percent, as Detectron2 prints AP.
    """
    parts = [
        _counts(analysis),
        _coco(analysis),
        _threshold(analysis),
        _classes(analysis),
        _errors(analysis),
        _sizes(analysis),
        *_groups(analysis),
        _images(analysis),
        "\n".join(analysis.notes),
    ]
    return "\n\n".join(part for part in parts if part)


def comparison_text(comparison: Comparison) -> str:
    """Value, change and its interval of the headline numbers, classes and images."""
    rows = [
        [x.name, *_both(x), _interval_of(comparison, x.name)]
        for x in (*comparison.coco, *comparison.overall)
    ]
    classes = [
        [row.name, *(cell for x in row.numbers for cell in _both(x)[::2])]
        for row in _widest(comparison)
    ]
    changed = (
        f"{comparison.images_better} images better: {_named(comparison.better)}\n"
        f"{comparison.images_worse} images worse: {_named(comparison.worse)}"
    )
    parts = [
        _table(rows, ["", "this", "other", "change", "95 %"]),
        _table(classes, ["class", "AP", "change", "AP50", "change", "F1", "change"]),
        changed,
        "\n".join(comparison.notes),
    ]
    return "\n\n".join(part for part in parts if part)


def _counts(analysis: Analysis) -> str:
    x = analysis.counts
    return (
        f"images: {x.images} ({x.empty_images} without objects), objects: {x.objects} "
        f"({x.ignored_objects} crowds besides), detections: {x.detections}"
    )


def _coco(analysis: Analysis) -> str:
    names = list(analysis.coco)
    table = _table([[_percent(x) for x in analysis.coco.values()]], names)
    ranges = [
        f"{name} {_percent(x.low)} to {_percent(x.high)}" for name, x in analysis.intervals.items()
    ]
    if not ranges:
        return table
    return f"{table}\n95 % over the choice of images: {', '.join(ranges)}"


def _threshold(analysis: Analysis) -> str:
    settings, point = analysis.settings, analysis.overall.at_threshold
    if settings.score_thresh is None:
        return "No detection hits an object: there is no threshold."
    why = "best for F1" if settings.score_thresh_is_best else "given"
    text = (
        f"At score >= {settings.score_thresh:.3g} ({why}), IoU {settings.iou_thresh:g}: "
        f"{_point(point)}\n{point.true_positives} hits, {point.false_positives} false, "
        f"{point.false_negatives} not found"
    )
    ece = analysis.calibration and analysis.calibration.ECE
    return text if ece is None else f"{text}; scores differ from precision by {_percent(ece)} (ECE)"


def _point(x: OperatingPoint) -> str:
    return f"precision {_percent(x.precision)}, recall {_percent(x.recall)}, F1 {_percent(x.f1)}"


def _classes(analysis: Analysis) -> str:
    if len(analysis.classes) < 2:
        return ""
    classes = sorted((x for x in analysis.classes if x.AP is not None), key=lambda x: -x.AP)
    half = MOST_CLASSES // 2
    hidden = len(analysis.classes) - len(classes)
    shown = classes
    if len(classes) > MOST_CLASSES:
        shown = [*classes[:half], *classes[-half:]]
    rows = [_class_row(x) for x in shown]
    table = _table(
        rows, ["class", "objects", "AP", "AP50", "precision", "recall", "F1", "at score"]
    )
    notes = []
    if len(shown) < len(classes):
        notes.append(f"the best {half} and the worst {half} of {len(classes)} classes")
    if hidden:
        notes.append(f"{hidden} of the classes have no objects")
    return "\n".join([table, "; ".join(notes)]) if notes else table


def _class_row(x: ClassResult) -> list[str]:
    best = x.best
    return [
        x.name,
        str(x.objects),
        *map(_percent, (x.AP, x.AP50, best.precision, best.recall, best.f1)),
        "" if best.threshold is None else f"{best.threshold:.3g}",
    ]


def _errors(analysis: Analysis) -> str:
    rows = [
        [x.kind, str(x.count_at_threshold), _percent(x.dAP), x.meaning] for x in analysis.errors
    ]
    table = _table(rows, ["mistake", "count", "AP50 lost", ""])
    if analysis.settings.iou_thresh != 0.5:
        table = table.replace("AP50 lost", "AP lost  ")
    names, counts = analysis.confusion.names, analysis.confusion.counts
    pairs = [
        (count, names[i], names[j])
        for i, row in enumerate(counts[:-1])
        for j, count in enumerate(row[:-1])
        if i != j and count
    ]
    pairs.sort(key=lambda x: -x[0])
    confused = ", ".join(f"{count} x {a} as {b}" for count, a, b in pairs[:MOST_CONFUSIONS])
    return f"{table}\nConfused most: {confused}" if confused else table


def _sizes(analysis: Analysis) -> str:
    rows = [
        [x.name, str(x.objects), _percent(x.recall), _percent(x.precision)]
        for x in analysis.octaves
    ]
    return _table(rows, ["side in pixels", "objects", "recall", "precision"]) if rows else ""


def _groups(analysis: Analysis) -> Iterable[str]:
    for grouping in analysis.groupings:
        rows = [
            [
                x.name,
                str(x.images),
                str(x.objects),
                *map(_percent, (x.AP, x.AP50, x.recall)),
                f"{_percent(x.recall_low)} to {_percent(x.recall_high)}" if x.objects else "",
            ]
            for x in grouping.groups
        ]
        headers = [grouping.field, "images", "objects", "AP", "AP50", "recall", "95 %"]
        yield _table(rows, headers)


def _images(analysis: Analysis) -> str:
    by_id = {x.image_id: x for x in analysis.images}
    worst = [by_id[i] for i in analysis.worst[:MOST_IMAGES]]
    if not worst:
        return ""
    rows = [
        [
            str(x.file_name or x.image_id),
            *map(str, (x.objects, x.true_positives, x.false_positives, x.false_negatives)),
            _percent(x.f1),
        ]
        for x in worst
    ]
    return _table(rows, ["worst images", "objects", "hits", "false", "not found", "F1"])


def _widest(comparison: Comparison) -> list[RowDifference]:
    """The classes whose AP changed most, the largest change first."""
    defined = [x for x in comparison.classes if x.numbers[0].change is not None]
    return sorted(defined, key=lambda x: -abs(x.numbers[0].change))[:MOST_CLASSES]


def _named(changes: list[ImageChange]) -> str:
    return ", ".join(
        f"{x.value.file_name or x.value.image_id} ({100 * x.change:+.0f})"
        for x in changes[:MOST_IMAGES]
    )


def _both(x: Difference) -> list[str]:
    """Value, the other's, and the change."""
    change = "" if x.change is None else f"{100 * x.change:+.1f}"
    return [_percent(x.value), _percent(x.against), change]


def _interval_of(comparison: Comparison, name: str) -> str:
    x = comparison.intervals.get(name)
    return "" if x is None else f"{100 * x.low:+.1f} to {100 * x.high:+.1f}"


def _percent(x: Number) -> str:
    return "" if x is None else f"{100 * x:.1f}"


def _table(rows: list[list[str]], headers: list[str]) -> str:
    """Text on the left, numbers on the right."""
    sides = ["left", *["right"] * (len(headers) - 1)]
    if headers and not headers[-1]:
        sides[-1] = "left"
    return tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True, colalign=sides)
