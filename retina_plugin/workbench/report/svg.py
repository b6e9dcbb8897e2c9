"""Small charts as inline SVG: their colours are classes of the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

WIDTH, HEIGHT = 460, 280
LEFT, RIGHT, TOP, BOTTOM = 48, 14, 12, 42
MOST_POINTS = 160  # of a line: more would only make the page heavy
CELL, MARGIN = 11, 82  # of a map: a square's side, and room for the names
LONGEST_NAME = 17

Range = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A curve of a chart.

    Attributes:
        points: x and y; where one of the two is not finite the curve has a gap.
        label: for the legend, and shown where the pointer rests on the curve.
        style: classes of the style sheet: ``c1`` to ``c6``, ``faint``, ``dashed``.
        key: what scripts find it by, the name of a class of objects for instance.
    """

    points: Sequence[tuple[float, float]]
    label: str = ""
    style: str = "c1"
    key: str = ""


class Axes:
    """A chart's frame: data to places on the page, ticks, grid and titles.

    Args:
        x, y: the ranges that are shown.
        x_title, y_title: what the axes count.
        size: width and height of the drawing; the page scales it.
        labelled: with numbers at the ticks; small charts have the grid alone.
    """

    def __init__(
        self,
        *,
        x: Range,
        y: Range,
        x_title: str = "",
        y_title: str = "",
        size: tuple[int, int] = (WIDTH, HEIGHT),
        labelled: bool = True,
    ) -> None:
        self.x, self.y = _spread(x), _spread(y)
        self.width, self.height = size
        self.left, self.bottom = (LEFT, BOTTOM) if labelled else (4, 6)
        self.parts: list[Markup] = []
        self._grid(labelled)
        if x_title:
            middle = (self.left + self.width - RIGHT) / 2
            self.text(middle, self.height - 6, x_title, "axis", anchor="middle")
        if y_title:
            sideways = Markup(
                '<text class="axis" transform="translate(13 {:.1f}) rotate(-90)" '
                'text-anchor="middle">{}</text>'
            )
            middle = (TOP + self.height - self.bottom) / 2
            self.parts.append(sideways.format(middle, y_title))

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the data is drawn."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return (
            self.left + across * (self.width - self.left - RIGHT),
            self.height - self.bottom - up * (self.height - TOP - self.bottom),
        )

    def text(
        self, x: float, y: float, content: object, style: str, *, anchor: str = "start"
    ) -> None:
        """Write at a place of the drawing."""
        self.parts.append(
            Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
                style, x, y, anchor, content
            )
        )

    def line(self, line: Line) -> None:
        """Draw a curve, inside of the frame."""
        places = []
        for x, y in thin_out(line.points, MOST_POINTS):
            if not (math.isfinite(x) and math.isfinite(y)):
                places.append(None)
                continue
            y = min(max(y, self.y[0]), self.y[1])
            places.append(self.at(x, y))
        path, pen_down = "", False
        for place in places:
            if place is not None:
                path += f"{'L' if pen_down else 'M'}{place[0]:.1f} {place[1]:.1f}"
            pen_down = place is not None
        if not path:
            return
        self.parts.append(
            Markup('<path class="line {}" data-key="{}" d="{}"><title>{}</title></path>').format(
                line.style, line.key, path, line.label
            )
        )
        if sum(place is not None for place in places) == 1:  # a line of one point is not seen
            self.dot(*next((x, y) for x, y in line.points if math.isfinite(y)), line.style)

    def dot(self, x: float, y: float, style: str, title: str = "") -> None:
        """Mark a point of the data."""
        at = self.at(x, y)
        self.parts.append(
            Markup(
                '<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="4"><title>{}</title></circle>'
            ).format(style, *at, title)
        )

    def bar(self, left: float, right: float, height: float, style: str, title: str = "") -> None:
        """A bar from the axis up."""
        (x0, y0), (x1, y1) = self.at(left, self.y[0]), self.at(right, height)
        self.parts.append(
            Markup(
                '<rect class="bar {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">'
                "<title>{}</title></rect>"
            ).format(style, x0 + 1, y1, max(x1 - x0 - 2, 1), max(y0 - y1, 0), title)
        )

    def draw(self, title: str) -> Markup:
        """The chart; ``title`` says to those who cannot see it what it shows."""
        return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
            self.width, self.height, title
        ) + Markup("").join([*self.parts, Markup("</svg>")])

    def _grid(self, labelled: bool) -> None:
        across = Markup('<path class="{}" d="M{} {:.1f}H{}"/>')
        for value in ticks(self.y):
            x, y = self.at(self.x[0], value)
            self.parts.append(across.format("grid", self.left, y, self.width - RIGHT))
            if labelled:
                self.text(x - 7, y + 4, short(value), "tick", anchor="end")
        floor = self.height - self.bottom
        self.parts.append(across.format("floor", self.left, floor, self.width - RIGHT))
        for value in ticks(self.x) if labelled else ():
            self.text(self.at(value, 0)[0], floor + 16, short(value), "tick", anchor="middle")


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_title: str,
    y_title: str = "",
    x: Range | None = None,
    y: Range | None = None,
    marks: Sequence[tuple[float, float, str, str]] = (),
    size: tuple[int, int] = (WIDTH, HEIGHT),
    labelled: bool = True,
) -> Markup:
    """Curves on common axes.

    Args:
        lines: later ones are drawn above earlier ones.
        title: what the chart shows, in words.
        x, y: ranges; None for those of the data.
        marks: points to point out: x, y, style, what they are.
        size, labelled: see :class:`Axes`.
    """
    every = [point for line in lines for point in line.points if all(map(math.isfinite, point))]
    axes = Axes(
        x=x or _extent([point[0] for point in every]),
        y=y or (0.0, _extent([point[1] for point in every])[1]),
        x_title=x_title,
        y_title=y_title,
        size=size,
        labelled=labelled,
    )
    for line in lines:
        axes.line(line)
    for at_x, at_y, style, what in marks:
        axes.dot(at_x, at_y, style, what)
    return axes.draw(title)


def ticks(over: Range, most: int = 5) -> list[float]:
    """Round numbers in a range, to write at an axis."""
    locator = MaxNLocator(nbins=most, steps=[1, 2, 2.5, 5, 10])
    slack = 1e-9 * (over[1] - over[0])
    return [float(x) for x in locator.tick_values(*over) if over[0] - slack <= x <= over[1] + slack]


def short(value: float) -> str:
    """A tick's number: 0.25, 3, 40k."""
    if abs(value) >= 10_000:
        return f"{value / 1000:.10g}k"
    return f"{value:.6g}"


def thin_out(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """``most`` of the points or fewer, evenly, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    step = (len(points) - 1) / (most - 1)
    return [points[round(index * step)] for index in range(most)]


def _extent(values: Sequence[float]) -> Range:
    return (min(values), max(values)) if values else (0.0, 1.0)


def _spread(over: Range) -> Range:
    """The range, made wide enough to be drawn."""
    low, high = over
    return (low, high) if high > low else (low, low + (abs(low) or 1.0))


def heat_map(
    values: Sequence[Sequence[float]],
    titles: Sequence[Sequence[str]],
    *,
    title: str,
    styles: Sequence[Sequence[str]],
    names: Sequence[str],
) -> Markup:
    """A square for each value that is not 0, as opaque as it is large.

    Args:
        values, titles, styles: n rows of n: 0 to 1, what is shown under the pointer, and the class
            of the style sheet.
        title: what the map shows, in words.
        names: of the rows, and of the columns.
    """
    side = CELL * len(names)
    paper = Markup('<rect class="paper" x="{0}" y="{0}" width="{1}" height="{1}"/>')
    parts = [paper.format(MARGIN, side)]
    for row, name in enumerate(names):
        at, text = MARGIN + row * CELL, clip(name, LONGEST_NAME)
        beside = Markup('<text x="{}" y="{}" text-anchor="end">{}</text>')
        above = Markup('<text transform="translate({} {}) rotate(-90)">{}</text>')
        parts.append(beside.format(MARGIN - 4, at + CELL - 2, text))
        parts.append(above.format(at + CELL - 2, MARGIN - 4, text))
        for column, value in enumerate(values[row]):
            if value > 0:
                cell = Markup(
                    '<rect class="cell {}" x="{}" y="{}" width="{}" height="{}" opacity="{:.2f}">'
                    "<title>{}</title></rect>"
                )
                x, size = MARGIN + column * CELL, CELL - 1
                strong = max(value, 0.12)  # a single mistake is to be seen
                style = styles[row][column]
                parts.append(cell.format(style, x, at, size, size, strong, titles[row][column]))
    head = Markup('<svg class="heat" viewBox="0 0 {0} {0}" role="img" aria-label="{1}">')
    return head.format(MARGIN + side, title) + Markup("").join([*parts, Markup("</svg>")])


def clip(text: str, most: int) -> str:
    """The text, cut where it is longer."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
