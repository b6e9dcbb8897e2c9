import json

import pytest
from PIL import Image

from retina_plugin.evaluation.curves import draw_curves, read_metrics


def write(path, *records):
    path.write_text("\n".join(json.dumps(r) for r in records))
    return path


def test_series_by_metric_and_the_last_of_a_resumed_step(tmp_path):
    file = write(
        tmp_path / "metrics.json",
        {"iteration": 19, "total_loss": 2.0},
        {"iteration": 39, "total_loss": 1.0, "bbox/AP": 5.0},
        {"iteration": 39, "total_loss": 1.5},
    )
    series = read_metrics(file)
    assert series["total_loss"] == [(19, 2.0), (39, 1.5)]
    assert series["bbox/AP"] == [(39, 5.0)]


def test_a_broken_line_is_named(tmp_path):
    file = write(tmp_path / "metrics.json", {"iteration": 1})
    file.write_text(file.read_text() + "\n{cut")
    with pytest.raises(ValueError, match=r"metrics\.json, line 2"):
        read_metrics(file)


@pytest.mark.parametrize("evaluated", [True, False])
def test_the_picture_shows_what_there_is(tmp_path, evaluated):
    records = [{"iteration": i, "total_loss": 2.0 - i / 9, "loss_cls": 1.0} for i in range(9)]
    if evaluated:
        records[-1]["bbox/AP50"] = 40.0
    path = draw_curves(write(tmp_path / "metrics.json", *records), tmp_path / "new" / "curves.png")
    with Image.open(path) as picture:
        assert picture.width > 2 * picture.height
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 10
