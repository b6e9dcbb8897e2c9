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
from retina_plugin.engine.non_finite.guard import NonFiniteError
from retina_plugin.engine.replay import replay
from retina_plugin.engine.trainer import RetinaTrainer

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "tests/support/tiny_models.py"  # has the tiny backbone


@pytest.fixture
def stopped(tmp_path):
    """The error of a training on five bands, of which one image has a NaN."""
    paths = write_band_blocks(tmp_path / "data", "train", 2, "npy")
    bands = np.load(paths.images / "1.npy").astype(np.float32)
    bands[4, 10, 20] = np.nan
    np.save(paths.images / "1.npy", bands)
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


def write_step(folder, config=True, **settings):
    cfg = tiny_focal_cfg(NORM="GN")
    step = step_of(
        tiny_detector(),
        [with_bad_pixel(float_batch())],
        folder,
        config=cfg.dump() if config else "",
        **settings,
    )
    return finding_of(step)


def change(path, **entries):
    torch.save({**torch.load(path, weights_only=True), **entries}, path)


def invoke(*arguments):
    return CliRunner().invoke(command, list(map(str, arguments)))


def test_the_same_in_python(tmp_path):
    found = write_step(tmp_path)
    result = replay(found.replay)
    assert result.reproduced and result.in_the_same_place and result.differences == []
    again = result.finding
    assert (again.layer, again.images, again.why) == (found.layer, found.images, found.why)


def test_what_people_see(tmp_path):
    found = write_step(tmp_path)
    done = invoke(found.replay, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert done.output.startswith("Reproduced. The loss became infinite or NaN at iteration=0")
    assert "image_1.png (id 101): 1 of 27,648" in done.output
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


def test_not_reproduced_says_what_is_different(tmp_path):
    path = write_step(tmp_path).replay
    saved = torch.load(path, weights_only=True)
    saved["batches"][0][1]["image"].nan_to_num_(0)
    change(path, batches=saved["batches"], environment={**saved["environment"], "torch": "1.0"})
    done = invoke(path)
    assert done.exit_code == 1
    assert "Not reproduced: iteration 0 is finite this time (" in done.output
    assert f"torch: 1.0 there, {torch.__version__} here" in done.output
    done = invoke(path, "--json")
    assert done.exit_code == 1 and json.loads(done.output)["finding"] is None


def test_mistakes(tmp_path):
    path = write_step(tmp_path, config=False).replay
    assert "LazyConfig: give that with --config-file" in invoke(path).output
    assert "error: " in invoke(tmp_path / "none.pth").output
    path = write_step(tmp_path / "other").replay
    config = tmp_path / "other.yaml"
    config.write_text(tiny_focal_cfg(NORM="").dump())
    done = invoke(path, "--config-file", config)
    assert done.exit_code == 1 and "its weights are not those of the config's model" in done.output


def test_micro_batches_and_gradients_are_replayed(tmp_path):
    cfg = tiny_focal_cfg(NORM="GN")
    batches = [float_batch(), with_bad_pixel(float_batch())]
    step = step_of(
        tiny_detector(), batches, tmp_path, config=cfg.dump(), parts=2, CHECK_GRADIENTS=True
    )
    result = replay(finding_of(step).replay)
    assert result.in_the_same_place and [x.index for x in result.finding.images] == [3]
