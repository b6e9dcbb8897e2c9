"""Loss and AP over the steps, from Detectron2's ``metrics.json``."""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

VALIDATION = "validation/"
LOSSES = {"total_loss": "total", "loss_cls": "classification", "loss_box_reg": "box"}
COLORS = ("C0", "C1", "C2")
APS = {"bbox/AP50": "AP50", "bbox/AP": "AP"}


def read_metrics(metrics_json: str | Path) -> dict[str, list[tuple[int, float]]]:
    """``metric -> [(step, value), ...]``; of a step written twice (a resume) the last counts.

    Raises:
        ValueError: a line is no json; names it.
    """
    series: dict[str, dict[int, float]] = {}
    for number, line in enumerate(Path(metrics_json).read_text().splitlines(), 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{metrics_json}, line {number}: no json ({error})") from error
        step = record.pop("iteration", None)
        for name, value in record.items():
            if step is not None:
                series.setdefault(name, {})[step] = value
    return {name: sorted(values.items()) for name, values in series.items()}


def draw_curves(metrics_json: str | Path, output: str | Path) -> Path:
    """Write a PNG with the losses on the left and the AP of each evaluation on the right.

    Losses of the validation set are dashed, in the colour of the training's. Of several test sets
    each has its name.

    Returns:
        ``output``, as a path.
    """
    series = read_metrics(metrics_json)
    figure = Figure(figsize=(11, 4), layout="constrained")
    FigureCanvasAgg(figure)
    loss_axes, ap_axes = figure.subplots(1, 2)
    for color, (name, label) in zip(COLORS, LOSSES.items(), strict=False):
        if name in series:
            _plot(loss_axes, series[name], label, color=color)
        for found in _named(series, f"{VALIDATION}{name}"):
            of_set = found.removesuffix(f"{VALIDATION}{name}")
            _plot(
                loss_axes, series[found], f"{label}, {of_set}validation", color=color, dashed=True
            )
    for name, label in APS.items():
        for found in _named(series, name):
            _plot(ap_axes, series[found], found.removesuffix(name) + label)
    for axes, title in ((loss_axes, "loss"), (ap_axes, "AP on the validation set")):
        axes.set(title=title, xlabel="step", ylim=(0, None))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=110)
    return output


def _named(series: dict[str, list[tuple[int, float]]], name: str) -> list[str]:
    """The metric of each test set: its name alone where there is one set."""
    return [x for x in series if x == name or x.endswith(f"/{name}")]


def _plot(
    axes: Axes,
    values: list[tuple[int, float]],
    label: str,
    *,
    color: str | None = None,
    dashed: bool = False,
) -> None:
    style = "--" if dashed else "-"
    axes.plot(
        *zip(*values, strict=True),
        label=label,
        color=color,
        linestyle=style,
        marker=".",
        markersize=4,
    )
