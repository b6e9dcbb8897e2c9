"""train_net.py on other images than colours of bytes, and with something before the backbone."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.block_data import as_overrides
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

pytest.importorskip("tifffile")
from support.band_data import write_band_blocks

ROOT = Path(__file__).parents[1]
WORDS = [
    *("--import", "tests/support/tiny_models.py", "--import", "tests/support/frame_front_end.py"),
    *("MODEL.META_ARCHITECTURE", "FocalRetinaNet", "MODEL.DEVICE", "cpu"),
    *("MODEL.BACKBONE.NAME", "build_tiny_fpn_backbone"),
    *("MODEL.ANCHOR_GENERATOR.SIZES", "[[16], [32], [64], [128], [256]]"),
    *("MODEL.RETINANET.NUM_CONVS", "1", "MODEL.RETINANET.NORM", "GN"),
    *("MODEL.RETINANET.SCORE_THRESH_TEST", "0.0", "INPUT.FORMAT", "bands"),
    *("INPUT.MIN_SIZE_TRAIN", "(80, 112)", "INPUT.MIN_SIZE_TEST", "96"),
    *("SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "4", "VIS_PERIOD", "2", "SEED", "3"),
]
RUNS = {
    "npy": (
        *("DATALOADER.NUM_WORKERS", "1", "INPUT.MIX.MOSAIC_PROB", "0.5"),
        *("MODEL.FRONT_END.NAME", "FrameFrontEnd"),
    ),
    "tif": ("DATALOADER.NUM_WORKERS", "0"),
    "png16": ("DATALOADER.NUM_WORKERS", "0", "MODEL.FRONT_END.NAME", "LearnedScaleFrontEnd"),
}
OWN_LOSSES = {"npy": {"loss_frame"}, "tif": set(), "png16": {"loss_scale"}}


def run(*words, code=0):
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "train_net.py", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert process.returncode == code, process.stdout[-3000:] + process.stderr[-3000:]
    return process.stdout + process.stderr


def statistics(channels, std=None):
    mean = [11000.0] * channels
    return ("MODEL.PIXEL_MEAN", mean, "MODEL.PIXEL_STD", std or [5000.0] * channels)


def average_precisions(output):
    return re.findall(r"copypaste: ([\d.,nan-]+)$", output, re.MULTILINE)[-1]


@pytest.mark.parametrize("kind", RUNS)
def test_trains_evaluates_and_draws(tmp_path, kind):
    data = as_overrides(*(write_band_blocks(tmp_path, x, 4, kind) for x in ("train", "test")))
    bands = 1 if kind == "png16" else 5
    words = (*WORDS, *RUNS[kind], *data, *statistics(bands), "OUTPUT_DIR", tmp_path / "out")
    output = run(*words)
    lines = [json.loads(x) for x in (tmp_path / "out/metrics.json").read_text().splitlines()]
    losses = {k: v for x in lines for k, v in x.items() if k.startswith("loss")}
    assert set(losses) == {"loss_cls", "loss_box_reg", *OWN_LOSSES[kind]}
    assert all(map(math.isfinite, losses.values()))
    assert len(average_precisions(output).split(",")) == 6
    events = EventAccumulator(str(tmp_path / "out"), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()["images"]
    (tag,) = (x for x in tags if x.startswith("ground"))
    assert [x.step for x in events.Images(tag)] == [0, 2]
    assert any(x.startswith("test/") for x in tags)  # at the evaluation
    weights = torch.load(tmp_path / "out/model_final.pth", weights_only=True)["model"]
    assert weights["backbone.bottom_up.res3.weight"].shape[1] == bands
    assert any(name.startswith("front_end.") for name in weights) == (kind != "tif")
    if kind == "png16":  # the weights of a front-end come back
        again = run("--eval-only", *words, "MODEL.WEIGHTS", tmp_path / "out/model_final.pth")
        assert average_precisions(again) == average_precisions(output)


def test_mistakes_end_with_the_message_alone(tmp_path):
    data = as_overrides(*(write_band_blocks(tmp_path, x, 2, "npy") for x in ("train", "test")))
    words = (*WORDS, *data, "OUTPUT_DIR", tmp_path / "out")
    output = run(*words, *statistics(3), code=1)
    assert "error: 2 problem(s) in the data" in output and "Traceback" not in output
    assert "image files whose number of bands differs from the model's (2)" in output
    output = run(*words, *statistics(5, std=[1.0, 2.0, 3.0]), code=1)
    assert "error: MODEL.PIXEL_MEAN and MODEL.PIXEL_STD" in output and "got 5 and 3" in output
