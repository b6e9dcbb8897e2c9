"""`retina anchors` on a small data set: a table, a verdict, a preset that trains, pictures."""

import json
import sys

import pytest
from click.testing import CliRunner
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from support.block_data import as_overrides, write_blocks
from support.catalogs import catalogs  # noqa: F401
from support.tiny_models import TinyBottomUp  # registers the backbone

from retina_plugin.cli import main
from retina_plugin.config.config_file import load_config
from retina_plugin.data.coco_registration import register_datasets
from retina_plugin.data.train_loader import build_train_loader
from retina_plugin.runs.solver import build_optimizer

CONFIG = """
MODEL:
  META_ARCHITECTURE: FocalRetinaNet
  DEVICE: cpu
  BACKBONE: {NAME: build_tiny_fpn_backbone}
  RETINANET: {NUM_CONVS: 1}
  ANCHOR_GENERATOR: {SIZES: [[64], [128], [256], [512], [1024]], ASPECT_RATIOS: [[1.0]]}
INPUT: {MIN_SIZE_TRAIN: [96], MIN_SIZE_TEST: 96, RANDOM_FLIP: none}
DATALOADER: {NUM_WORKERS: 0}
SOLVER: {IMS_PER_BATCH: 2, MAX_ITER: 2}
VERSION: 2
"""


@pytest.fixture
def given(tmp_path):
    assert TinyBottomUp
    paths = write_blocks(tmp_path, "train", 6)
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    words = as_overrides(paths, paths)
    return [
        str(tmp_path / "tiny.yaml"),
        *(f"{key}={value}" for key, value in zip(words[::2], words[1::2], strict=True)),
    ]


def run(*arguments, code=0):
    words = ["anchors", *map(str, arguments)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == code, result.output
    return result.output


def test_table_verdict_and_fix(given):
    text = run(*given)
    assert "p3, stride 8, anchors 64" in text and "all boxes" in text
    fix = next(x.strip() for x in text.splitlines() if "MODEL.ANCHOR_GENERATOR.SIZES=" in x)
    better = run(*given, fix)
    assert "nothing to change" in better


def test_the_preset_is_a_config_that_trains(given, tmp_path, monkeypatch):
    preset = tmp_path / "fitted.yaml"
    monkeypatch.setattr(sys, "argv", ["retina", "anchors", *given, "--write", str(preset)])
    text = run(*given, "--write", preset, "--anchors-per-cell", "3", "--generator", "octave")
    assert f"_BASE_: [{given[0]}, {preset}]" in text
    lines = preset.read_text().splitlines()
    assert lines[0].startswith("# Anchors fitted to train, ") and lines[-1] == "VERSION: 2"
    assert "# command:  retina anchors" in preset.read_text()
    assert "# gain: " in preset.read_text() and "# held out: " in preset.read_text()
    assert all(len(line) <= 100 for line in lines if "/" not in line)
    # keys of a config's own win over its bases: this one is a base too
    (tmp_path / "own.yaml").write_text(f"_BASE_: [{given[0]}, {preset}]\n")
    cfg = load_config(tmp_path / "own.yaml", given[1:])
    assert cfg.MODEL.ANCHOR_GENERATOR.NAME == "OctaveAnchorGenerator"
    DatasetCatalog.remove("train")
    register_datasets(cfg)
    model = build_model(cfg)
    assert set(model.anchor_generator.num_anchors) == {3}
    batches, optimizer = iter(build_train_loader(cfg)), build_optimizer(cfg, model)
    with EventStorage():
        for _ in range(2):
            loss = sum(model(next(batches)).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            assert loss.isfinite()


def test_json_is_all_that_is_printed(given, tmp_path):
    values = json.loads(
        run(*given, "--json", "--fit", "--split", "test", "--pictures", 1, "--out", tmp_path / "p")
    )
    assert values["all"][0]["boxes"] > 6 and values["fit"]["whole"]["after"]["boxes"] > 6
    assert values["fix"][0].startswith("MODEL.ANCHOR_GENERATOR.NAME=")
    (picture,) = values["files"]
    assert picture.startswith(str(tmp_path / "p")) and picture.endswith(".png")


def test_mistakes_say_what_to_do(given, tmp_path):
    assert "error: " in run(given[0], code=1)  # no data set
    assert "MODEL.RETINANT" in run(*given, "MODEL.RETINANT.X=1", code=1)
    assert "no folder" in run(*given, "--write", tmp_path / "none" / "a.yaml", code=1)
    (tmp_path / "mine.yaml").write_text("# precious")
    assert "--overwrite" in run(*given, "--write", tmp_path / "mine.yaml", code=1)
    assert (tmp_path / "mine.yaml").read_text() == "# precious"
    assert "need --fit" in run(*given, "--per-level", code=2)
