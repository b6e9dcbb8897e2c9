"""`comparison.html`: the same numbers as the tables, and the differences seed by seed."""

import re
from pathlib import Path

import pytest
from support.html_page import Page

from retina_plugin.workbench.compare.page import write_comparison
from retina_plugin.workbench.compare.runs import Run
from retina_plugin.workbench.compare.summary import results_of, score_table


def finished(folder, label, seed, scores):
    run = Run(label, seed, Path("c.yaml"), (), images=80, folder=folder / f"{label}{seed}")
    result = {"scores": scores, "seconds_per_step": 0.25, "parameters": 1_250_000}
    run.finish({**result, "peak_bytes": 2**30, "threads": 2, "device": "cpu"})
    return run


@pytest.fixture
def runs(tmp_path):
    def scores(ap):
        return {name: {"AP": ap, "AP50": 2 * ap, "AP75": 1.0} for name in ("val", "<test>")}

    every = {"stock": (10.0, 20.0), "<b>new<b>": (12.5, 19.0, 30.0)}
    return [
        finished(tmp_path, label, seed, scores(ap))
        for label, aps in every.items()
        for seed, ap in enumerate(aps, 1)
    ]


def test_tables_and_differences(runs, tmp_path):
    page = runs[0].folder / "report.html"
    page.write_text("of the run itself")
    results = results_of(runs)
    output = write_comparison(results, tmp_path / "comparison.html", runs=runs)
    page = Page(output.read_text(encoding="utf-8"))
    assert page.loads == ["#data0", "#data1", "stock1/report.html", "stock1/report.html"]
    assert page.tags["table"] == 2 * 2 + 1 and "b" in page.tags and "<b>new" not in page.html
    for cell in (cell for row in score_table(results, "val").rows for cell in row):
        assert cell in page.text
    rows = re.findall(r"<tr><td>(\d)</td>(.*?)</tr>", page.html.split('id="data1"')[0])
    cells = [(seed, re.sub(r"<[^>]+>", " ", row).split()) for seed, row in rows]
    assert cells == [
        ("1", ["10.0", "12.5", "+2.5"]),
        ("2", ["20.0", "19.0", "−1.0"]),
        ("3", ["–", "30.0"]),
    ]


def test_a_contender_without_a_run(tmp_path):
    one = finished(tmp_path, "a", 1, {"val": {"AP": float("nan"), "AP50": 1.0, "AP75": 1.0}})
    none = Run("b", 1, Path("c.yaml"), (), images=80, folder=tmp_path / "b")
    output = write_comparison(results_of([one, none]), tmp_path / "new" / "page.html")
    assert "data0" in Page(output.read_text(encoding="utf-8")).ids
