import pytest
import torch

from retina_plugin.workbench.benchmark.report import as_dict, as_text
from retina_plugin.workbench.benchmark.rows import Part, Row, interleave, seconds


def test_ratio_is_of_the_samples_of_one_turn():
    row = Row("step", "s", {"stock": [1.0, 10.0, 2.0], "plugin": [0.5, 4.0, 0.6]})
    assert row.median("stock") == 2
    assert row.ratio("plugin") == pytest.approx((0.4, 0.3, 0.5))
    assert row.ratio("stock") is None


@pytest.mark.parametrize(
    "row",
    [
        Row("step", "s", {"plugin": [1.0]}),
        Row("step", "s", {"stock": [0.0], "plugin": [1.0]}),
        Row("overhead", "%", {"stock": [1.0], "plugin": [1.0]}, compared=False),
        Row("equal", "", {"other": [1.0]}),
    ],
)
def test_no_ratio(row):
    assert row.ratio("plugin") is None


def test_in_turn_and_in_alternating_order():
    order = []
    results = interleave({x: lambda x=x: order.append(x) or len(order) for x in "ab"}, 3)
    assert "".join(order) == "abbaab"
    assert results == {"a": [1, 4, 5], "b": [2, 3, 6]}


def test_seconds():
    assert 0 <= seconds(lambda: None, torch.device("cpu")) < 0.1


def test_table_and_json():
    rows = [
        Row("step", "s", {"stock": [2.0, 4.0, 4.0], "plugin": [1.0, 1.0, 1.0]}),
        Row("equal", "", {"plugin": [1.0]}),
    ]
    part = Part("a step", rows, ["noted"])
    header, _, step, equal, _, note = as_text(part).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in (header, step, equal)]
    assert cells == [
        ["a step", "stock", "plugin", "plugin / stock (least to most)"],
        ["step [s]", "4", "1", "0.25 (0.25 to 0.5)"],
        ["equal", "", "1", ""],
    ]
    assert note == "* noted"
    found = as_dict(part)["rows"]["step"]
    assert found["median"] == {"stock": 4.0, "plugin": 1.0}
    assert found["ratio_to_stock"] == {"plugin": {"median": 0.25, "min": 0.25, "max": 0.5}}
    assert found["samples"]["stock"] == [2.0, 4.0, 4.0]


def test_without_stock_there_is_no_ratio():
    assert "/" not in as_text(Part("a step", [Row("step", "s", {"plugin": [1.0]})]))
