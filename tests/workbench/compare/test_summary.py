import math
from pathlib import Path

import pytest
from PIL import Image

from retina_plugin.workbench.compare import summary
from retina_plugin.workbench.compare.plot import draw_comparison
from retina_plugin.workbench.compare.runs import Run


def run(folder, label, seed, scores):
    run = Run(label, seed, Path("c.yaml"), (), images=80, folder=folder / f"{label}{seed}")
    if scores is not None:
        result = {"scores": scores, "seconds_per_step": 0.25 * seed, "parameters": 1_250_000}
        run.finish({**result, "peak_bytes": 2**30, "threads": 2, "device": "cpu"})
    return run


def scores(ap, ap50=math.nan):
    return {"val": {"AP": ap, "AP50": ap50, "AP75": 1.0}}


@pytest.fixture
def results(tmp_path):
    return summary.results_of(
        [
            run(tmp_path, "a", 1, scores(10.0)),
            run(tmp_path, "b", 1, scores(12.0)),
            run(tmp_path, "a", 2, scores(20.0)),
            run(tmp_path, "b", 2, scores(21.0)),
            run(tmp_path, "b", 3, scores(60.0)),
            run(tmp_path, "c", 1, None),
        ]
    )


def row(text, label):
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {label} ")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_means_spread_and_differences_of_the_same_seeds(results):
    table, _ = summary.as_text(results).split("\n\n")
    assert row(table, "a") == ["a", "15.0 (10.0 to 20.0)", "", "1.0 (1.0 to 1.0)", "", "2"]
    assert row(table, "b") == [
        "b", "31.0 (12.0 to 60.0)", "", "1.0 (1.0 to 1.0)", "+1.5 (+1.0 to +2.0)", "3"
    ]  # fmt: skip
    assert row(table, "c") == ["c", "", "", "", "", "0"]


def test_costs(results):
    _, table = summary.as_text(results).split("\n\n")
    assert row(table, "a") == [
        "a", "0.375 (0.250 to 0.500)", "1.00 (1.00 to 1.00)", "1.25 M", "80", "cpu, 2 threads"
    ]  # fmt: skip


def test_what_coco_leaves_undefined_is_no_number(results):
    assert summary.tested_data(results) == ["val"]
    assert summary.values(results, "a", "val", "AP50") == {}
    assert summary.values(results, "a", "val", "AP") == {1: 10.0, 2: 20.0}
    assert summary.values(results, "a", "other", "AP") == {}


def test_the_picture(results, tmp_path):
    with Image.open(draw_comparison(results, tmp_path / "new" / "plot.png")) as picture:
        colours = picture.convert("RGB").getcolors(1 << 24)
    assert len(colours) > 20  # bars and dots, not an empty sheet
