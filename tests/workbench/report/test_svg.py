import math
import re

import pytest
from support.html_page import Page

from retina_plugin.workbench.report.svg import (
    Line,
    clip,
    heat_map,
    line_chart,
    short,
    thin_out,
    ticks,
)


def chart(*lines, **options):
    svg = str(line_chart(lines, title="t", x_title="x", **options))
    Page(svg)  # well-formed
    return svg


def places(svg):
    (path,) = re.findall(r'class="line [^"]*" data-key="[^"]*" d="([^"]*)"', svg)
    return path


@pytest.mark.parametrize("over", [(0, 1), (0, 90_000), (-3, 7.5), (0.001, 0.0013)])
def test_ticks_are_few_and_inside(over):
    found = ticks(over)
    assert 2 <= len(found) <= 7
    assert all(over[0] - 1e-9 <= x <= over[1] + 1e-9 for x in found)


def test_a_value_that_is_no_number_is_a_gap():
    assert places(chart(Line([(0, 0), (1, math.nan), (2, 1), (3, 1)]))).count("M") == 2


def test_higher_values_are_drawn_higher():
    ys = [
        float(y)
        for _, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", places(chart(Line([(0, 0), (1, 5)]))))
    ]
    assert ys[0] > ys[1] == 12  # y runs down; the largest value touches the frame


def test_a_single_point_and_nothing_at_all():
    assert "<circle" in chart(Line([(3, 0.5)]))
    assert '<path class="line' not in chart(Line([]))
    assert "nan" not in chart(Line([(0, math.nan)]))


def test_thinning_keeps_the_ends():
    points = [(i, i) for i in range(1001)]
    few = thin_out(points, 100)
    assert (few[0], few[-1], len(few)) == (points[0], points[-1], 100)
    assert thin_out(points[:5], 100) == points[:5]


def test_texts_are_escaped():
    assert "<b>" not in chart(Line([(0, 0), (1, 1)], "<b>", key='"<b>'))


def test_a_map_has_a_square_for_each_mistake():
    values = [[1.0, 0.0], [0.001, 0.5]]
    texts = [["a", "b"], ["<c>", "d"]]
    svg = str(heat_map(values, texts, title="m", styles=[["x"] * 2] * 2, names=["<p>", "q" * 40]))
    Page(svg)
    assert svg.count('class="cell') == 3 and 'opacity="0.12"' in svg
    assert "&lt;c&gt;" in svg and "q" * 40 not in svg


def test_short_texts():
    assert [short(0.25), short(90_000), short(3.0)] == ["0.25", "90k", "3"]
    assert clip("abcdef", 4) == "abc…" and clip("abcd", 4) == "abcd"
