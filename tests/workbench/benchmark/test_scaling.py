import pytest
from PIL import Image
from support.tiny_models import tiny_cfg

from retina_plugin.workbench.benchmark import scaling
from retina_plugin.workbench.benchmark.cases import Case
from retina_plugin.workbench.benchmark.scaling import (
    Point,
    draw_scaling,
    free_memory,
    measure_scaling,
)

CASE = Case(images=1, boxes=2, height=64, width=64, classes=7)


def test_points_of_each_axis(tmp_path):
    points = {"boxes": (1, 9), "classes": (1, 100), "size": (32, 192)}
    found = measure_scaling(tiny_cfg(), CASE, 1, against_stock=True, points=points)
    assert {(x.axis, x.value, x.contender) for x in found} == {
        (axis, value, name)
        for axis, values in points.items()
        for value in values
        for name in ("stock", "plugin")
    }
    for point in found:
        assert point.step > point.assignment > 0 and point.memory > 0
    memory = {(x.axis, x.value): x.memory for x in found if x.contender == "stock"}
    assert memory["size", 192] > memory["size", 32]
    assert memory["classes", 100] > memory["classes", 1]
    with Image.open(draw_scaling(found, tmp_path / "docs" / "scaling.png")) as picture:
        assert picture.width > 800


@pytest.mark.parametrize(("limit", "value"), [("free_memory", lambda: 0.0), ("SLOWEST", 0.0)])
def test_what_does_not_fit_is_left_out(monkeypatch, caplog, limit, value):
    monkeypatch.setattr(scaling, limit, value)
    caplog.set_level("INFO", "retina_plugin.workbench.benchmark.scaling")
    found = measure_scaling(tiny_cfg(), CASE, 1, against_stock=False, points={"boxes": (1, 5, 9)})
    assert [x.value for x in found] == [1]  # nothing is known before the first
    assert "plugin ends at 1 boxes an image" in caplog.text


def test_the_size_counts_squared(monkeypatch):
    """Twice the boxes cost up to twice the time, twice the size four times."""

    def measure(cfg, case, names, repeats, axis, value):
        return [Point(axis, value, name, step=1.0, assignment=0.1, memory=1e-6) for name in names]

    monkeypatch.setattr(scaling, "_measure", measure)
    monkeypatch.setattr(scaling, "SLOWEST", 3.0)
    points = {"boxes": (50, 100), "size": (50, 100)}
    found = measure_scaling(tiny_cfg(), CASE, 1, against_stock=False, points=points)
    assert [(x.axis, x.value) for x in found] == [("boxes", 50), ("boxes", 100), ("size", 50)]


def test_free_memory():
    assert free_memory() > 2**20
