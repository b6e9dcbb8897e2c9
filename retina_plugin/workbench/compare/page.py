"""What a comparison gave as one HTML page, in the style of ``retina report``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import fmean

from retina_plugin.version import __version__
from retina_plugin.workbench.compare.runs import Run
from retina_plugin.workbench.compare.summary import (
    Results,
    Table,
    cost_table,
    score_table,
    tested_data,
    values,
)
from retina_plugin.workbench.report.page import PAGE
from retina_plugin.workbench.report.render import render, write_page


@dataclass(frozen=True)
class Strip:
    """A contender's AP as a bar, each seed as a dot; all in percent of the scale."""

    label: str
    mean: float | None
    bar: float
    dots: list[tuple[int, float, float]]


@dataclass(frozen=True)
class SeedRow:
    """AP of each contender with one seed, and over the first one.

    Attributes:
        cells: AP, difference (None for the first contender or where one of the two is missing), and
            the address of the run's own page, "" where there is none.
    """

    seed: int
    cells: list[tuple[float | None, float | None, str]]


@dataclass(frozen=True)
class DataPage:
    """One data set's part of the page."""

    name: str
    anchor: str
    table: Table
    strips: list[Strip]
    seeds: list[SeedRow]


def write_comparison(results: Results, output: Path, *, runs: Sequence[Run] = ()) -> Path:
    """Write the page: tables, a plot, and the differences seed by seed.

    Args:
        results: of ``results_of``.
        output: the page.
        runs: those that the results are of; the page leads to their own pages, where there are.

    Returns:
        ``output``.
    """
    pages = {
        (run.label, run.seed): (run.folder / PAGE).relative_to(output.parent.resolve()).as_posix()
        for run in runs
        if (run.folder / PAGE).is_file() and run.folder.is_relative_to(output.parent.resolve())
    }
    page = render(
        "comparison.html",
        version=__version__,
        written=f"{datetime.now().astimezone():%Y-%m-%d %H:%M}",
        labels=list(results),
        runs=sum(len(found) for found in results.values()),
        data=[
            _data_page(results, name, f"data{index}", pages)
            for index, name in enumerate(tested_data(results))
        ],
        costs=cost_table(results),
    )
    return write_page(output, page)


def _data_page(
    results: Results, data: str, anchor: str, pages: dict[tuple[str, int], str]
) -> DataPage:
    scores = {label: values(results, label, data, "AP") for label in results}
    first, *_ = scores
    highest = max((x for own in scores.values() for x in own.values()), default=0.0) or 1.0
    strips = [
        Strip(
            label=label,
            mean=fmean(own.values()) if own else None,
            bar=100 * fmean(own.values()) / highest if own else 0.0,
            dots=[(seed, value, 100 * value / highest) for seed, value in own.items()],
        )
        for label, own in scores.items()
    ]
    seeds = sorted({seed for own in scores.values() for seed in own})
    rows = [
        SeedRow(
            seed,
            [
                (own.get(seed), _over(first, label, scores, seed), pages.get((label, seed), ""))
                for label, own in scores.items()
            ],
        )
        for seed in seeds
    ]
    return DataPage(data, anchor, score_table(results, data), strips, rows)


def _over(first: str, label: str, scores: dict[str, dict[int, float]], seed: int) -> float | None:
    if label == first or seed not in scores[label] or seed not in scores[first]:
        return None
    return (scores[label][seed] - scores[first][seed]) / 100
