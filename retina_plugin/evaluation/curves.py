"""Loss and AP over the steps, from Detectron2's ``metrics.json``."""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

LOSSES = {"total_loss": "total", "loss_cls": "classification", "loss_box_reg": "box"}
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

    Returns:
        ``output``, as a path.
    """
    series = read_metrics(metrics_json)
    figure = Figure(figsize=(11, 4), layout="constrained")
    FigureCanvasAgg(figure)
    loss_axes, ap_axes = figure.subplots(1, 2)
    for axes, names, title in (
        (loss_axes, LOSSES, "training loss"),
        (ap_axes, APS, "AP on the validation set"),
    ):
        for name, label in names.items():
            if name in series:
                axes.plot(*zip(*series[name], strict=True), label=label, marker=".", markersize=4)
        axes.set(title=title, xlabel="step", ylim=(0, None))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=110)
    return output
