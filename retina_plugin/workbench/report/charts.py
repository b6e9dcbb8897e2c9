"""The charts of a page: precision and recall, calibration, and the course of the training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from retina_plugin.evaluation.analysis.breakdowns import Calibration, Number
from retina_plugin.evaluation.analysis.results import (
    Analysis,
    ClassResult,
    PRCurve,
    ThresholdCurve,
)
from retina_plugin.workbench.report.run_folder import Series
from retina_plugin.workbench.report.svg import Axes, Line, line_chart

NAN = float("nan")
MOST_CLASSES = 100  # that have curves of their own: an LVIS would make a page of 10 MB
MANY = 20  # thin lines that would hide what they cross
MINI = (200, 150)


@dataclass(frozen=True)
class Chart:
    """A chart with its title and, for each kind of line, style and words."""

    title: str
    chart: Markup
    legend: list[tuple[str, str]]


@dataclass(frozen=True)
class Mini:
    """The small chart of one class."""

    name: str
    chart: Markup
    AP50: Number


@dataclass(frozen=True)
class Curves:
    """Precision, recall and F1 of all classes and of each."""

    lead: str
    charts: list[Chart]
    choices: list[tuple[str, str]] = field(default_factory=list)
    minis: list[Mini] = field(default_factory=list)


def precision_recall(analysis: Analysis, other: Analysis | None, other_name: str) -> Curves | None:
    """The curves; None where there are no objects.

    Args:
        other: another run on the same images.
        other_name: its name.
    """
    if analysis.overall.pr50 is None:
        return None
    shown = [x for x in analysis.classes if x.pr50 is not None and x.thresholds is not None]
    several = len(shown) > 1
    every = len(shown)
    shown = sorted(shown, key=lambda x: -x.objects)[:MOST_CLASSES] if several else []
    lead = "Precision over recall at each score"
    if several:
        lead += ", the mean of all classes; a thin line for each class"
        if every > MOST_CLASSES:
            lead += f", of the {MOST_CLASSES} with the most objects among {every}"
    lead += ". Beside it what a score threshold gives, so that you can choose yours."
    return Curves(
        lead=lead,
        charts=[
            _precision_over_recall(analysis, shown, other, other_name),
            _over_threshold(analysis, shown),
        ],
        choices=[(str(x.category_id), x.name) for x in sorted(shown, key=lambda x: x.name)],
        minis=[_mini(x) for x in shown],
    )


def _precision_over_recall(
    analysis: Analysis, shown: Sequence[ClassResult], other: Analysis | None, other_name: str
) -> Chart:
    lines = [
        Line(_pr(x.pr50), f"{x.name}, IoU 0.50", _thin(shown), key=str(x.category_id))
        for x in shown
    ]
    legend = [("c1", "IoU 0.50"), ("c3", "IoU 0.75")]
    if other is not None and other.overall.pr50 is not None:
        lines.append(Line(_pr(other.overall.pr50), f"{other_name}, IoU 0.50", "c1 dashed thin"))
        lines.append(Line(_pr(other.overall.pr75), f"{other_name}, IoU 0.75", "c3 dashed thin"))
        legend.append(("c1 dashed", other_name))
    lines.append(Line(_pr(analysis.overall.pr75), "all classes, IoU 0.75", "c3"))
    lines.append(Line(_pr(analysis.overall.pr50), "all classes, IoU 0.50", "c1"))
    if shown:
        legend.append(("faint", "each class, IoU 0.50"))
    chart = line_chart(
        lines,
        title="Precision over recall",
        x_title="recall",
        x=(0.0, 1.0),
        y=(0.0, 1.0),
    )
    return Chart("Precision over recall", chart, legend)


def _over_threshold(analysis: Analysis, shown: Sequence[ClassResult]) -> Chart:
    curve, best = analysis.overall.thresholds_micro, analysis.overall.micro
    lines = [
        Line(
            _over(x.thresholds, x.thresholds.f1),
            f"F1 of {x.name}",
            _thin(shown),
            str(x.category_id),
        )
        for x in shown
        if x.thresholds is not None
    ]
    lines += [
        Line(_over(curve, curve.precision), "precision", "c2"),
        Line(_over(curve, curve.recall), "recall", "c3"),
        Line(_over(curve, curve.f1), "F1", "c1"),
    ]
    legend = [("c1", "F1"), ("c2", "precision"), ("c3", "recall")]
    marks = []
    if best.threshold is not None and best.f1 is not None:
        what = f"best F1, {100 * best.f1:.1f}, at a score of {best.threshold:.2f}"
        marks = [(best.threshold, best.f1, "c1", what)]
    if shown:
        legend.append(("faint", "F1 of each class"))
    ends = (curve.threshold[0], curve.threshold[-1]) if curve.threshold else (0.0, 1.0)
    chart = line_chart(
        lines,
        title="Precision, recall and F1 over the score threshold",
        x_title="score threshold",
        x=ends,
        y=(0.0, 1.0),
        marks=marks,
    )
    return Chart("Over the score threshold", chart, legend)


def _thin(shown: Sequence[ClassResult]) -> str:
    return "faint many" if len(shown) > MANY else "faint"


def _mini(of: ClassResult) -> Mini:
    lines = [
        Line(_pr(of.pr75), "IoU 0.75", "c3 dashed"),
        Line(_pr(of.pr50), "IoU 0.50", "c1"),
    ]
    chart = line_chart(
        lines, title=of.name, x_title="", x=(0.0, 1.0), y=(0.0, 1.0), size=MINI, labelled=False
    )
    return Mini(of.name, chart, of.AP50)


def reliability(calibration: Calibration) -> Markup:
    """Precision over score, and behind it how many detections have such a score."""
    axes = Axes(x=(0.0, 1.0), y=(0.0, 1.0), x_title="score", y_title="precision")
    most = max((x.detections for x in calibration.bins), default=0) or 1
    for x in calibration.bins:
        title = f"{x.detections:,} detections from {x.low:.2f} to {x.high:.2f}"
        axes.bar(x.low, x.high, 0.25 * x.detections / most, "quiet", title)
    for x in calibration.bins:
        if x.precision is not None and x.score is not None:
            title = f"score {x.score:.2f}, precision {x.precision:.2f}, {x.detections:,} detections"
            axes.bar(x.low, x.high, x.precision, "", title)
    axes.line(Line([(0.0, 0.0), (1.0, 1.0)], "calibrated", "diagonal"))
    return axes.draw("Precision over score")


LOSSES = {
    "total_loss": ("total", "c1"),
    "loss_cls": ("classification", "c2"),
    "loss_box_reg": ("box", "c3"),
}


def training_curves(metrics: Series, other: Series | None, other_name: str) -> list[Chart]:
    """Losses, AP, learning rate; those that the metrics have."""
    losses = {name: (text, style) for name, (text, style) in LOSSES.items() if name in metrics}
    extra = [
        name
        for name in metrics
        if name not in LOSSES and name.startswith("loss_") and "/" not in name
    ]
    losses |= {
        name: (name.removeprefix("loss_").replace("_", " "), f"c{4 + i % 3}")
        for i, name in enumerate(sorted(extra))
    }
    validation = sorted(x for x in metrics if x.startswith("validation/") and "loss" in x)
    aps = sorted(x for x in metrics if x.endswith(("bbox/AP", "bbox/AP50")))
    groups = [
        ("Training loss", losses),
        ("Validation loss", _styled(validation)),
        ("AP on the test sets", _styled(aps)),
        ("Learning rate", {"lr": ("learning rate", "c5")} if "lr" in metrics else {}),
    ]
    return [
        _training_chart(title, metrics, names, other, other_name)
        for title, names in groups
        if any(len(metrics[name]) > 0 for name in names)
    ]


def _styled(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    return {name: (name, f"c{1 + i % 6}") for i, name in enumerate(names)}


def _training_chart(
    title: str,
    metrics: Series,
    names: dict[str, tuple[str, str]],
    other: Series | None,
    other_name: str,
) -> Chart:
    lines = []
    for name, (text, style) in names.items():
        if other and name in other:
            lines.append(Line(other[name], f"{text}, {other_name}", f"{style} dashed thin"))
        lines.append(Line(metrics[name], text, style))
    marks = [
        (step, value, style, f"{text} {value:.2f} at step {step}")
        for name, (text, style) in names.items()
        if len(metrics[name]) <= 30
        for step, value in metrics[name]
        if value == value
    ]
    chart = line_chart(lines, title=title, x_title="step", marks=marks)
    return Chart(title, chart, [(style, text) for text, style in names.values()])


def _pr(curve: PRCurve | None) -> list[tuple[float, float]]:
    return list(zip(curve.recall, curve.precision, strict=True)) if curve is not None else []


def _over(curve: ThresholdCurve, values: Sequence[Number]) -> list[tuple[float, float]]:
    numbers = [NAN if value is None else value for value in values]
    return list(zip(curve.threshold, numbers, strict=True))
