"""Results of runs, side by side: means, spread and paired differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

from tabulate import tabulate

from retina_plugin.workbench.compare.runs import Run

METRICS = ("AP", "AP50", "AP75")
Results = dict[str, dict[int, dict[str, Any]]]  # label -> seed -> what the run measured


class Table(NamedTuple):
    """Texts in rows under headers."""

    headers: list[str]
    rows: list[list[str]]


def results_of(runs: Sequence[Run]) -> Results:
    """What the finished runs measured, in the order of the contenders."""
    results: Results = {run.label: {} for run in runs}
    for run in runs:
        result = run.result()
        if result is not None:
            results[run.label][run.seed] = {**result, "images": run.images}
    return results


def tested_data(results: Results) -> list[str]:
    """The data sets that any run was tested on."""
    every = (run["scores"] for runs in results.values() for run in runs.values())
    return list(dict.fromkeys(name for scores in every for name in scores))


def values(results: Results, label: str, data: str, metric: str) -> dict[int, float]:
    """``seed -> metric`` on one data set; what COCO leaves undefined is left out."""
    found = {
        seed: run["scores"].get(data, {}).get(metric, math.nan)
        for seed, run in results[label].items()
    }
    return {seed: value for seed, value in found.items() if not math.isnan(value)}


def as_text(results: Results) -> str:
    """A table for each data set, and one for what the runs cost."""
    tables = [score_table(results, data) for data in tested_data(results)]
    return "\n\n".join(
        tabulate(table.rows, headers=table.headers, tablefmt="github", disable_numparse=True)
        for table in (*tables, cost_table(results))
    )


def score_table(results: Results, data: str) -> Table:
    """AP of each contender on a data set, and its difference to the first, seed by seed."""
    first, *_ = results
    against = values(results, first, data, "AP")
    rows = []
    for label in results:
        own = values(results, label, data, "AP")
        differences = [own[seed] - against[seed] for seed in own if seed in against]
        rows.append(
            [
                label,
                *(_spread(values(results, label, data, x).values(), "{:.1f}") for x in METRICS),
                "" if label == first else _spread(differences, "{:+.1f}"),
                str(len(own)),
            ]
        )
    return Table([data, *METRICS, f"AP over {first}, seed by seed", "runs"], rows)


def cost_table(results: Results) -> Table:
    """Time of a step, memory and size of each contender."""
    rows = []
    for label in results:
        runs = list(results[label].values())
        times = [x["seconds_per_step"] for x in runs if x["seconds_per_step"] is not None]
        rows.append(
            [
                label,
                _spread(times, "{:.3f}"),
                _spread([x["peak_bytes"] / 2**30 for x in runs], "{:.2f}"),
                _one([f"{x['parameters'] / 1e6:.2f} M" for x in runs]),
                _one([str(x["images"]) for x in runs]),
                _one([f"{x['device']}, {x['threads']} threads" for x in runs]),
            ]
        )
    headers = ["cost", "s / step", "peak GiB", "trained weights", "images seen", "on"]
    return Table(headers, rows)


def _spread(numbers: Any, form: str) -> str:
    """Mean (least to most)."""
    numbers = list(numbers)
    if not numbers:
        return ""
    mean, least, most = (form.format(x) for x in (fmean(numbers), min(numbers), max(numbers)))
    return mean if len(numbers) == 1 else f"{mean} ({least} to {most})"


def _one(texts: list[str]) -> str:
    return " or ".join(dict.fromkeys(texts))
