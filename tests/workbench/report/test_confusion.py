from support.html_page import Page

from retina_plugin.evaluation.analysis.breakdowns import ConfusionMatrix
from retina_plugin.workbench.report.confusion import MOST_ROWS, view_confusion


def test_numbers_shares_and_the_most_frequent():
    names = ["a", "b", "background"]
    view = view_confusion(ConfusionMatrix(names=names, counts=[[6, 3, 1], [0, 2, 0], [4, 0, 0]]))
    cells = [[(x.count, x.percent, x.style) for x in row.cells] for row in view.rows]
    assert cells == [
        [(6, 60, "right"), (3, 30, "wrong"), (1, 10, "ground")],
        [(0, 0, "zero"), (2, 100, "right"), (0, 0, "zero")],
        [(4, 100, "ground"), (0, 0, "zero"), (0, 0, "zero")],
    ]
    assert view.rows[0].cells[1].title == "3 of 10 a detected as b (30%)"
    (only,) = view.frequent
    assert (only.object, only.detection, only.count, only.share) == ("a", "b", 3, 0.3)


def test_many_classes_are_a_map():
    size = MOST_ROWS + 1
    counts = [[2 * (i == j) + (j == i + 1) for j in range(size)] for i in range(size)]
    names = [f"class {i}" for i in range(size - 1)] + ["background"]
    view = view_confusion(ConfusionMatrix(names=names, counts=counts))
    svg = str(view.heat_map)
    Page(svg)
    assert view.rows == [] and svg.count('class="cell right"') == size - 1
    assert len(view.frequent) == 10
