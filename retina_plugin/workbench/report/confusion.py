"""The confusion matrix, as a table of numbers or, of many classes, as a map."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from retina_plugin.evaluation.analysis.breakdowns import ConfusionMatrix
from retina_plugin.workbench.report.svg import heat_map

MOST_ROWS = 16  # of a table that is still read at a glance
MOST_FREQUENT = 10


@dataclass(frozen=True)
class Cell:
    """One number of the matrix."""

    count: int
    percent: int
    style: str
    title: str


@dataclass(frozen=True)
class Row:
    """The objects of one class."""

    name: str
    cells: list[Cell]


@dataclass(frozen=True)
class Confusion:
    """Two classes that are taken for each other."""

    object: str
    detection: str
    count: int
    share: float


@dataclass(frozen=True)
class ConfusionView:
    """What the page shows: rows for a table, or a map; and what happens most."""

    rows: list[Row]
    heat_map: Markup
    frequent: list[Confusion]


def view_confusion(matrix: ConfusionMatrix) -> ConfusionView:
    """The matrix as the page shows it."""
    names, last = matrix.names, len(matrix.names) - 1
    totals = [sum(row) for row in matrix.counts]
    rows = [
        Row(
            names[i],
            [_cell(count, totals[i], (i, j, last), names) for j, count in enumerate(counts)],
        )
        for i, counts in enumerate(matrix.counts)
    ]
    mistaken = [
        Confusion(names[i], names[j], count, count / totals[i])
        for i, counts in enumerate(matrix.counts[:last])
        for j, count in enumerate(counts[:last])
        if i != j and count
    ]
    mistaken.sort(key=lambda x: (-x.count, -x.share, x.object, x.detection))
    as_map = len(rows) > MOST_ROWS
    return ConfusionView(
        rows=[] if as_map else rows,
        heat_map=_map(rows, names) if as_map else Markup(""),
        frequent=mistaken[:MOST_FREQUENT],
    )


def _cell(count: int, total: int, place: tuple[int, int, int], names: list[str]) -> Cell:
    i, j, last = place
    style = "right" if i == j else "ground" if last in (i, j) else "wrong"
    share = count / total if total else 0.0
    if i == last:
        title = f"{count} detections of {names[j]} where there is none"
    elif j == last:
        title = f"{count} of {total} {names[i]} missed ({share:.0%})"
    else:
        title = f"{count} of {total} {names[i]} detected as {names[j]} ({share:.0%})"
    if i == j == last:
        return Cell(count, 0, "zero", "")
    return Cell(count, round(100 * share), style if count else "zero", title)


def _map(rows: list[Row], names: list[str]) -> Markup:
    return heat_map(
        [[cell.percent / 100 if cell.count else 0.0 for cell in row.cells] for row in rows],
        [[cell.title for cell in row.cells] for row in rows],
        title="Confusion matrix",
        styles=[[cell.style for cell in row.cells] for row in rows],
        names=names,
    )
