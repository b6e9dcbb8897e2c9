"""How step, assignment and memory grow with boxes, classes and image size, as a picture."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch
from detectron2.config import CfgNode
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from retina_plugin.workbench.benchmark.cases import Case
from retina_plugin.workbench.benchmark.contenders import build_contenders
from retina_plugin.workbench.benchmark.rows import GIB, PLUGIN, STOCK, interleave
from retina_plugin.workbench.benchmark.step import step_memory, step_times

POINTS = {
    "boxes": (1, 10, 100, 500, 1000, 2000, 5000),
    "classes": (1, 20, 80, 365, 1203),
    "size": (256, 384, 512, 640, 800, 1024),
}
QUICK_POINTS = {"boxes": (1, 500), "classes": (1, 80), "size": (128, 256)}
LABELS = {"boxes": "boxes an image", "classes": "classes", "size": "pixels a side"}
PANELS = {
    "step": "step [s]",
    "assignment": "assignment [s]",
    "memory": "peak above the model [GiB]",
}
SLOWEST = 120.0  # seconds of a step that is expected to be worth waiting for

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Point:
    """Medians of one contender at one value of one axis: seconds and GiB."""

    axis: str
    value: int
    contender: str
    step: float
    assignment: float
    memory: float


def measure_scaling(
    cfg: CfgNode,
    case: Case,
    repeats: int,
    *,
    against_stock: bool,
    points: dict[str, tuple[int, ...]] = POINTS,
) -> list[Point]:
    """The points of all three axes, one changed at a time from ``case``.

    A contender leaves an axis where its next point, growing like the axis (the size: squared),
    would not fit into free memory or take too long; the log says so.
    """
    found: list[Point] = []
    for axis, values in points.items():
        names = [STOCK, PLUGIN] if against_stock else [PLUGIN]
        for i, value in enumerate(values):
            if i:
                growth = (value / values[i - 1]) ** (2 if axis == "size" else 1)
                names = [name for name in names if _affordable(found, axis, name, growth)]
            if names:
                logger.info(f"{LABELS[axis]}: {value}")
                found += _measure(cfg, _with(case, axis, value), names, repeats, axis, value)
    return found


def _with(case: Case, axis: str, value: int) -> Case:
    if axis == "size":
        return replace(case, height=value, width=value)
    return replace(case, **{axis: value})


def _affordable(found: Sequence[Point], axis: str, name: str, growth: float) -> bool:
    last = [x for x in found if x.axis == axis and x.contender == name][-1]
    memory, free = last.memory * growth, free_memory() / GIB
    if memory <= free and last.step * growth <= SLOWEST:
        return True
    logger.info(
        f"{name} ends at {last.value} {LABELS[axis]}: the next step might need {memory:.1f} GiB of "
        f"{free:.1f} and {last.step * growth:.0f} s of {SLOWEST:.0f}"
    )
    return False


def _measure(
    cfg: CfgNode, case: Case, names: Sequence[str], repeats: int, axis: str, value: int
) -> list[Point]:
    cfg = cfg.clone()
    cfg.MODEL.RETINANET.NUM_CLASSES = case.classes
    everyone, _ = build_contenders(cfg, case.batch(), against_stock=STOCK in names)
    contenders = [c for c in everyone if c.name in names]
    memory = {c.name: step_memory(c)[0] / GIB for c in contenders}
    runs = {c.name: lambda c=c: step_times(c) for c in contenders}
    times = interleave(runs, repeats)
    return [
        Point(
            axis=axis,
            value=value,
            contender=name,
            step=median(x["step"] for x in times[name]),
            assignment=median(x["assignment"] for x in times[name]),
            memory=memory[name],
        )
        for name in runs
    ]


def free_memory() -> float:
    """Bytes; infinite where nobody says."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
    info = Path("/proc/meminfo")
    for line in info.read_text().splitlines() if info.is_file() else []:
        if line.startswith("MemAvailable:"):
            return 1024.0 * int(line.split()[1])
    return float("inf")


def draw_scaling(points: Sequence[Point], output: Path) -> Path:
    """A PNG: a column an axis, a row a measure, a line a contender."""
    figure = Figure(figsize=(11, 9), layout="constrained")
    FigureCanvasAgg(figure)
    axes_names = list(dict.fromkeys(point.axis for point in points))
    grid = figure.subplots(len(PANELS), len(axes_names), squeeze=False)
    for row, (panel, label) in zip(grid, PANELS.items(), strict=True):
        for axes, axis in zip(row, axes_names, strict=True):
            for name in (STOCK, PLUGIN):
                line = [(x.value, getattr(x, panel)) for x in points
                        if (x.axis, x.contender) == (axis, name)]  # fmt: skip
                if line:
                    axes.plot(*zip(*line, strict=True), label=name, marker=".")
            axes.set(xlabel=LABELS[axis], ylabel=label, ylim=(0, None))
            axes.grid(alpha=0.3)
            axes.legend()
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=110)
    return output
