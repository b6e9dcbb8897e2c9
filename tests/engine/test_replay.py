"""From a training that stops to a replay in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from support.band_data import write_band_blocks
from support.block_data import as_overrides
from support.failing import finding_of, float_batch, step_of, tiny_detector, with_bad_pixel
from support.tiny_models import tiny_focal_cfg

from retina_plugin.cli.replay import command
from retina_plugin.data.coco_registration import register_datasets
from retina_plugin.data.mapper import RetinaDatasetMapper
from retina_plugin.engine.non_finite.guard import NonFiniteError
from retina_plugin.engine.replay import replay
from retina_plugin.engine.trainer import RetinaTrainer

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "tests/support/tiny_models.py"  # has the tiny backbone


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """The error of a training on five bands, into one of which a mapper puts a NaN."""
    paths = write_band_blocks(tmp_path / "data", "train", 2, "npy")
    load = RetinaDatasetMapper.__call__

    def load_badly(self, record):
        given = load(self, record)
        given["image"] = given["image"].float()
        if record["file_name"].endswith("1.npy"):
            given["image"][1, 10, 20] = torch.nan
        return given

    monkeypatch.setattr(RetinaDatasetMapper, "__call__", load_badly)
    cfg = tiny_focal_cfg(NUM_CLASSES=3, NORM="GN")
    cfg.merge_from_list(
        [
            *as_overrides(paths, None),
            *("INPUT.FORMAT", "bands", "INPUT.MIN_SIZE_TRAIN", (96,), "INPUT.RANDOM_FLIP", "none"),
            *("MODEL.PIXEL_MEAN", [9000.0] * 5, "MODEL.PIXEL_STD", [5000.0] * 5),
            *("DATALOADER.NUM_WORKERS", 0, "SOLVER.IMS_PER_BATCH", 2, "SOLVER.MAX_ITER", 2),
            *("OUTPUT_DIR", str(tmp_path / "output"), "SEED", 1),
        ]
    )
    register_datasets(cfg)
    with pytest.raises(NonFiniteError) as error:
        RetinaTrainer(cfg).train()
    return error.value


def test_a_bad_pixel_from_training_to_replay(stopped, tmp_path):
    """The file is named, and a fresh process names it again, with a picture."""
    found = stopped.finding
    assert found.images[0].file.endswith("1.npy") and found.images[0].bad_pixels == 1
    path = tmp_path / "output/non_finite/step_0.pth"
    assert found.replay == str(path) and f"retina replay {path}" in str(stopped)
    assert found.images[0].file in str(stopped)
    arguments = [str(path), "--import", str(MODELS), "--out", str(tmp_path / "out"), "--json"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "retina_plugin.cli", "replay", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["reproduced"] and result["in_the_same_place"] and not result["differences"]
    assert result["finding"]["images"][0]["file"] == found.images[0].file
    assert result["finding"]["layer"]["name"] == "backbone.bottom_up.res3"
    red = [np.asarray(Image.open(file)) for file in result["pictures"]]
    marked = [(picture == (255, 0, 0)).all(axis=2) for picture in red]
    assert any(mark[10, 20] for mark in marked)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Of a step with its replay file."""
    folder, config = tmp_path_factory.mktemp("step"), tiny_focal_cfg(NORM="GN").dump()
    batches = [float_batch((4, 2)), with_bad_pixel(float_batch())]
    step = step_of(tiny_detector(), batches, folder, config, parts=2, CHECK_GRADIENTS=True)
    return finding_of(step)


def changed(found, path, **entries):
    """A copy of the file with other entries."""
    torch.save({**torch.load(found.replay, weights_only=True), **entries}, path)
    return path


def invoke(*arguments):
    return CliRunner().invoke(command, list(map(str, arguments)))


def test_the_same_in_python(found):
    """Of two micro-batches."""
    result = replay(found.replay)
    assert result.reproduced and result.in_the_same_place and result.differences == []
    again = result.finding
    assert (again.layer, again.images, again.why) == (found.layer, found.images, found.why)
    assert [image.index for image in again.images] == [3]


def test_what_people_see(found, tmp_path):
    done = invoke(found.replay, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert done.output.startswith("Reproduced. The loss became infinite or NaN at iteration=0")
    assert "image_1.png (id 101): 1 of 27,648" in done.output
    assert len(list((tmp_path / "out").glob("*.png"))) == 4


def test_another_place_is_said(found, tmp_path):
    finding = {**found.as_plain(), "layer": {"name": "head.cls_score"}}
    done = invoke(changed(found, tmp_path / "step.pth", finding=finding))
    assert done.exit_code == 0 and "in the training it was head.cls_score" in done.output


def test_not_reproduced_says_what_is_different(found, tmp_path):
    saved = torch.load(found.replay, weights_only=True)
    saved["batches"][1][1]["image"].nan_to_num_(0)
    environment = {**saved["environment"], "torch": "1.0"}
    path = tmp_path / "step.pth"
    changed(found, path, batches=saved["batches"], environment=environment)
    done = invoke(path)
    assert done.exit_code == 1
    assert "Not reproduced: iteration 0 is finite this time (" in done.output
    assert f"torch: 1.0 there, {saved['environment']['torch']} here" in done.output
    done = invoke(path, "--json")
    assert done.exit_code == 1 and json.loads(done.output)["finding"] is None


def test_mistakes(found, tmp_path):
    without = changed(found, tmp_path / "lazy.pth", config="")
    assert "LazyConfig: give that with --config-file" in invoke(without).output
    assert "error: " in invoke(tmp_path / "none.pth").output
    config = tmp_path / "other.yaml"
    config.write_text(tiny_focal_cfg(NORM="").dump())
    done = invoke(found.replay, "--config-file", config)
    assert done.exit_code == 1 and "its weights are not those of the config's model" in done.output
