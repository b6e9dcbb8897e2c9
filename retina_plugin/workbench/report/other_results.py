"""Numbers of data sets that are not evaluated as COCO is: LVIS, Pascal VOC, a user's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from retina_plugin.evaluation.results_file import RESULTS, Results, read_results
from retina_plugin.workbench.report.render import plain

TASKS = ("bbox", "bbox_TTA")  # of Detectron2's evaluators of boxes


@dataclass(frozen=True)
class ResultTable:
    """The numbers of one data set, a row a metric: name, value, and the value of another run."""

    name: str
    anchor: str
    rows: list[tuple[str, float, float | None]]


def find_results(
    folder: Path, metrics: dict[str, list[tuple[int, float]]], names: Sequence[str]
) -> dict[str, Results]:
    """Data set -> its numbers.

    Args:
        folder: of the run; each evaluation leaves ``inference/<data set>/results.json``.
        metrics: of its ``metrics.json``, whose last values are taken where that file is missing.
        names: ``DATASETS.TEST`` of the run.
    """
    found: dict[str, Results] = {}
    for suffix in ("", "_TTA"):
        for file in sorted(folder.glob(f"inference{suffix}/*/{RESULTS}")):
            results = {f"{task}{suffix}": x for task, x in read_results(file.parent).items()}
            found.setdefault(file.parent.name, {}).update(results)
    for name in names:
        prefix = f"{name}/" if len(names) > 1 else ""
        results = {task: _last(metrics, f"{prefix}{task}/") for task in TASKS}
        found.setdefault(name, {task: x for task, x in results.items() if x})
    order = dict.fromkeys([*names, *found])
    return {name: found[name] for name in order if found[name]}


def _last(metrics: dict[str, list[tuple[int, float]]], prefix: str) -> dict[str, float]:
    return {
        name.removeprefix(prefix): series[-1][1]
        for name, series in metrics.items()
        if name.startswith(prefix) and "/" not in name.removeprefix(prefix) and series
    }


def result_tables(
    results: dict[str, Results], other: dict[str, Results] | None = None
) -> list[ResultTable]:
    """A table for each data set; with another run's numbers where it has them."""
    return [
        ResultTable(
            name,
            f"results{index}",
            [
                (f"{task}/{metric}", value, _of(other, name, task, metric))
                for task, found in of_set.items()
                for metric, value in found.items()
            ],
        )
        for index, (name, of_set) in enumerate(results.items())
    ]


def _of(other: dict[str, Results] | None, name: str, task: str, metric: str) -> float | None:
    return (other or {}).get(name, {}).get(task, {}).get(metric)


def as_text(table: ResultTable, other: str = "") -> str:
    """The table for a terminal."""
    headers: list[Any] = [table.name, "value", *([other] if other else [])]
    rows = [[name, *map(plain, values[: len(headers) - 1])] for name, *values in table.rows]
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)
