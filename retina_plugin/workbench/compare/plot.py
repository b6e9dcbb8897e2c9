"""The AP of every run as a dot, every contender's mean as a bar."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from retina_plugin.workbench.compare.summary import Results, tested_data, values


def draw_comparison(results: Results, output: Path) -> Path:
    """Write a PNG with one panel for each data set; returns ``output``."""
    labels, sets = list(results), tested_data(results)
    columns = max(1, len(sets))
    figure = Figure(figsize=(2.5 + 3.2 * columns, 1.4 + 0.34 * len(labels)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, columns, sharey=True, squeeze=False)[0]
    for axes, data in zip(panels, sets, strict=False):
        for row, label in enumerate(labels):
            scores = list(values(results, label, data, "AP").values())
            if scores:
                axes.barh(row, fmean(scores), color="tab:blue" if row else "tab:gray", alpha=0.45)
                axes.plot(scores, [row] * len(scores), "o", color="black", markersize=4)
        axes.set(title=data, xlabel="AP: mean, and each seed", yticks=range(len(labels)))
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_yticklabels(labels)
    panels[0].invert_yaxis()  # the first contender on top
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=110)
    return output
