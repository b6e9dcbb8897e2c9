"""From a training that stops to a replay in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.band_data import write_band_blocks
from support.block_data import as_overrides
from support.failing import write_step
from support.own_settings import drop_foreign_settings
from support.tiny_models import tiny_focal_cfg

from retina_plugin.data.coco_registration import register_datasets
from retina_plugin.data.mapper import RetinaDatasetMapper
from retina_plugin.engine.non_finite.guard import NonFiniteError
from retina_plugin.engine.trainer import RetinaTrainer
from retina_plugin.workbench.replay import replay

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
    cfg = drop_foreign_settings(tiny_focal_cfg(NUM_CLASSES=3, NORM="GN"))
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
    arguments = [str(path), "--out", str(tmp_path / "out"), "--json"]
    arguments += ["--import", str(MODELS)]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "retina_plugin.cli", "replay", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},  # tests/support imports itself
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["reproduced"] and result["in_the_same_place"] and not result["differences"]
    assert result["finding"]["images"][0]["file"] == found.images[0].file
    assert result["finding"]["layer"]["name"] == "backbone.bottom_up.res3"
    (first, second) = (np.asarray(Image.open(file)) for file in result["pictures"])
    if "1.npy" in first_file(path):
        first, second = second, first
    assert first.shape == second.shape == (480, 480, 3)
    red = [(picture == (255, 0, 0)).all(axis=2) for picture in (first, second)]
    assert not red[0].any() and red[1][10 * 5 + 2, 20 * 5 + 2]


def first_file(path):
    return torch.load(path, weights_only=True)["batches"][0][0]["file_name"]


def test_the_same_in_python(tmp_path):
    """Of two micro-batches."""
    found = write_step(tmp_path)
    result = replay(found.replay)
    assert result.reproduced and result.in_the_same_place and result.differences == []
    again = result.finding
    assert (again.layer, again.images, again.why) == (found.layer, found.images, found.why)
    assert [image.index for image in again.images] == [3]
