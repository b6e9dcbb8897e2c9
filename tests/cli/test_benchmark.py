"""`retina benchmark` on a tiny detector, from the command line to table and json."""

import gc
import json

import pytest
from click.testing import CliRunner
from PIL import Image
from support import tiny_models  # registers the backbone that the config names

from retina_plugin.cli import benchmark as verb
from retina_plugin.cli import main
from retina_plugin.workbench.benchmark import coco_evaluation, data_loading, scaling

PARTS = ("step", "assignment", "loss", "inference")


@pytest.fixture(autouse=True)
def _no_search_for_garbage(monkeypatch):
    monkeypatch.setattr(gc, "collect", lambda: 0)


@pytest.fixture
def config_file(tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(tiny_models.tiny_focal_cfg().dump())
    return file


def benchmark(config_file, *arguments, code=0):
    command = ["benchmark", "--config-file", str(config_file), "--size", "64x96"]
    result = CliRunner().invoke(main, [*command, "--repeats", "2", *arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_tables_and_json(config_file, tmp_path):
    json_file = tmp_path / "new" / "numbers.json"
    chosen = [x for part in PARTS for x in ("--part", part)]
    output = benchmark(
        config_file, "--against", "stock", "--json", str(json_file), "--boxes", "4", *chosen
    )
    for row in (
        "step [s]", "data [s]", "network [s]", "assignment [s]", "loss [s]", "backward [s]",
        "optimizer [s]", "floor [s]", "overhead [%]", "peak memory [GiB]", "synchronisations",
        "forward and backward [s]", "inference [s]", "decode [s]", "NMS [s]",
        "labels and matches as stock's", "largest distance to stock's boxes [px]",
    ):  # fmt: skip
        assert f"| {row} " in output, row
    assert "2 x 4 boxes, 1161 anchors" in output  # of 8x12, 4x6, 2x3, 1x2 and 1x1 cells
    found = json.loads(json_file.read_text())
    assert found["settings"]["classes"] == 7 and found["settings"]["height"] == 64
    assert {"device", "threads", "torch", "detectron2"} <= found["environment"].keys()
    assert tuple(found["parts"]) == PARTS
    step = found["parts"]["step"]["rows"]["step"]
    assert len(step["samples"]["plugin"]) == 2
    assert step["ratio_to_stock"]["plugin"].keys() == {"median", "min", "max"}


def test_alone_and_of_other_settings(config_file):
    override = "MODEL.RETINANET.BBOX_REG_LOSS_TYPE=giou"
    output = benchmark(config_file, "--part", "loss", "--classes", "3", "--batch", "1", override)
    assert "1161 anchors x 3 classes" in output
    assert override in output
    assert "stock" not in output


def test_the_parts_of_their_own_data(config_file, monkeypatch, tmp_path):
    rates = {"stock": [10.0, 20.0], "plugin": [20.0, 20.0]}
    loaded = {"mapper": rates, "loader": rates, "data": "some", "decoder": "PIL"}
    compared = {"samples": rates, "max_difference": 1e-9}
    monkeypatch.setattr(data_loading, "measure", lambda cfg, images, workers: loaded)
    monkeypatch.setattr(coco_evaluation, "compare", lambda **settings: compared)
    output = benchmark(config_file, "--part", "data", "--part", "coco-evaluation")
    assert "| mapper: images [1/s] " in output and "1.5 (1 to 2)" in output
    assert "500 images, 30000 detections, 80 classes" in output and "1e-09" in output


def test_scaling(config_file, tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "QUICK_POINTS", {"boxes": (1, 5)})
    output = benchmark(
        config_file, "--scaling", str(tmp_path), "--quick", "--json", str(tmp_path / "s.json")
    )
    assert str(tmp_path / "scaling.png") in output
    with Image.open(tmp_path / "scaling.png") as picture:
        assert picture.height > 500
    points = json.loads((tmp_path / "s.json").read_text())["scaling"]
    assert [(x["axis"], x["value"], x["contender"]) for x in points] == [
        ("boxes", 1, "plugin"),
        ("boxes", 5, "plugin"),
    ]


def test_the_points_are_those_asked_for():
    assert scaling.POINTS["boxes"][:: len(scaling.POINTS["boxes"]) - 1] == (1, 5000)
    assert scaling.POINTS["classes"][:: len(scaling.POINTS["classes"]) - 1] == (1, 1203)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--size", "512"), 2, "'512' is no size: write height x width"),
        (("--size", "0x9"), 2, "is no size"),
        (("--against", "itself"), 2, "'stock'"),
        (("--part", "everything"), 2, "'assignment'"),
        (("MODEL.RETINANET.NUM_CLASES", "3"), 1, "Did you mean MODEL.RETINANET.NUM_CLASSES"),
        (("MODEL.META_ARCHITECTURE", "GeneralizedRCNN"), 1, "this compares RetinaNets"),
    ],
)
def test_mistakes(config_file, arguments, code, message):
    result = CliRunner().invoke(main, ["benchmark", "--config-file", str(config_file), *arguments])
    assert result.exit_code == code
    assert message in result.output + str(result.exception)
    assert "Traceback" not in result.output


def test_classes_by_default(tmp_path):
    """A config that has them from its data."""
    assert verb._config(_write(tmp_path, "VERSION: 2"), (), None).MODEL.RETINANET.NUM_CLASSES == 80
    own = _write(tmp_path, "VERSION: 2\nMODEL: {RETINANET: {NUM_CLASSES: 5}}")
    assert verb._config(own, (), None).MODEL.RETINANET.NUM_CLASSES == 5
    assert verb._config(own, (), 9).MODEL.RETINANET.NUM_CLASSES == 9


def _write(folder, text):
    file = folder / "config.yaml"
    file.write_text(text)
    return str(file)


def test_a_size_that_is_one_already():
    """click 8.0 converts a default twice."""
    assert verb.Size().convert((512, 640), None, None) == (512, 640)
