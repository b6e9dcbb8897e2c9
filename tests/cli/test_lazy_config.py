"""Every verb that takes a config takes a LazyConfig."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from support.block_data import write_blocks
from support.tiny_lazy_config import write_tiny_lazy_config

from retina_plugin.cli import main
from retina_plugin.engine.arguments import argument_parser
from retina_plugin.workbench.job import run_job

ROOT = Path(__file__).parents[2]


@pytest.fixture
def lazy(tmp_path):
    return write_tiny_lazy_config(tmp_path)


def retina(*arguments, code=0):
    done = CliRunner().invoke(main, list(map(str, arguments)))
    assert done.exit_code == code, done.output
    return done.output


def train(lazy, *overrides, flags=()):
    words = [*flags, "--config-file", str(lazy), *overrides]
    return run_job(argument_parser().parse_args(words))


def log_of(lazy):
    return (lazy.parent / "output/log.txt").read_text()


# ---- training: what a yaml has


def test_doctor_best_model_early_stopping_and_report(lazy, tmp_path):
    with lazy.open("a") as file:
        file.write("train.early_stopping = dict(metric='validation/total_loss', patience=1)\n")
        file.write("train.early_stopping.min_delta = 1e9\n")
        file.write("train.loggers = []\n")
    train(lazy, "TEST.EVAL_PERIOD=1", "train.max_iter=9")
    output = tmp_path / "output"
    assert "doctor: " in log_of(lazy) and "Early stopping: validation/total_loss" in log_of(lazy)
    names = {"model_best.pth", "model_final.pth", "report.html", "curves.png", "lazy_config.yaml"}
    assert names <= {path.name for path in output.iterdir()}
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    assert all(x in lines[-1] for x in ("validation/loss_cls", "validation/total_loss"))
    assert torch.load(output / "model_final.pth", weights_only=True)["iteration"] == 1
    page = (output / "report.html").read_text()
    assert "lazy_test" in page and "LAZY_CONFIG" in page


def test_wrong_labels_end_it_before_the_training(lazy, tmp_path):
    content = json.loads((tmp_path / "train.json").read_text())
    content["annotations"][0]["bbox"][2] = -5
    (tmp_path / "train.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit, match="negative width or height"):
        train(lazy)
    assert not (tmp_path / "output/metrics.json").exists()


def test_tiles_and_test_time_augmentation(lazy):
    words = [
        *("train.max_iter=1", "TEST.DETECTIONS_PER_IMAGE=200"),
        *("INPUT.TILES.TEST_SIZE=64", "INPUT.TILES.TEST_OVERLAP=16"),
        *("train.test_augmentation.min_sizes=[96,128]", "INPUT.TILES.TRAIN_SIZE=64"),
    ]
    results = train(lazy, *words)
    assert {"bbox", "bbox_TTA"} <= results.keys()
    assert "AP counts TEST.DETECTIONS_PER_IMAGE 200" in log_of(lazy)


def test_mosaic(lazy):
    train(lazy, "train.max_iter=2", "INPUT.MIX.MOSAIC_PROB=1.0", "INPUT.MIX.SIZE=96")


def test_data_by_keys_alone(lazy, tmp_path):
    """As with a yaml: ``DATASETS.COCO`` replaces what the file names."""
    other = write_blocks(tmp_path / "other", "val", 3, seed=5)
    key = "DATASETS.COCO.TEST"
    words = [f"{key}.JSON={other.json}", f"{key}.IMAGES={other.images}", f"{key}.NAME=elsewhere"]
    train(lazy, *words, "train.max_iter=1")
    assert (tmp_path / "output/inference/elsewhere/coco_instances_results.json").is_file()


def test_two_test_sets(lazy, tmp_path):
    with lazy.open("a") as file:
        file.write("train.settings = {'DATASETS.TEST': ['lazy_test', 'lazy_train']}\n")
    results = train(lazy, "train.max_iter=1")
    assert list(results) == ["lazy_test", "lazy_train"]
    assert results["lazy_train"]["validation"]["total_loss"] > 0


# ---- verbs


def test_doctor(lazy, tmp_path):
    found = json.loads(retina("doctor", lazy, "--json"))
    assert found["errors"] == 0
    texts = [x["where"] for x in found["findings"]]
    assert "SOLVER.BASE_LR" in texts and "memory" in texts
    # a fix that it names can be pasted
    (fix,) = [x["fix"] for x in found["findings"] if x["where"] == "SOLVER.BASE_LR"]
    again = json.loads(retina("doctor", lazy, "--json", fix))
    assert "SOLVER.BASE_LR" not in [x["where"] for x in again["findings"]]


def test_doctor_writes_a_clean_lazy_config(lazy, tmp_path):
    content = json.loads((tmp_path / "train.json").read_text())
    content["annotations"].append({**content["annotations"][0], "id": 99})
    (tmp_path / "train.json").write_text(json.dumps(content))
    words = ("train.max_iter=5", "OUTPUT_DIR=there", "TEST.VALIDATION_LOSS=False")
    output = retina("doctor", lazy, *words, "--write-clean", tmp_path / "clean")
    assert "boxes that are there twice left out: 1" in output
    found = json.loads(retina("doctor", tmp_path / "clean/clean.py", "--json"))
    assert not [x for x in found["findings"] if "twice" in x["what"]]
    text = (tmp_path / "clean/clean.py").read_text()
    assert "max_iter=5" in text and "VALIDATION_LOSS" in text and "train.output_dir" in text


def test_anchors(lazy, tmp_path):
    found = json.loads(retina("anchors", lazy, "--json", "--pictures", "1", "--out", tmp_path))
    assert len(found["files"]) == 1
    fitted = json.loads(retina("anchors", lazy, "--json", "--fit"))
    assert fitted["fit"]["whole"]["after"]["boxes"]
    again = json.loads(retina("anchors", lazy, "--json", *fitted["fix"]))
    assert again != found
    refused = retina("anchors", lazy, "--write", tmp_path / "fitted.yaml", code=1)
    assert "which a LazyConfig does not have" in refused


def test_predict(lazy, tmp_path):
    train(lazy, "train.max_iter=1")
    weights, image = tmp_path / "output/model_final.pth", tmp_path / "test/0.png"
    command = ("predict", lazy, weights, image, "--json", "--score-thresh", "0")
    (found,) = json.loads(retina(*command).splitlines()[-1])["results"]
    assert found["detections"]
    assert retina("predict", tmp_path / "output/config.yaml", weights, image, code=2)


def test_replay(lazy, tmp_path):
    with pytest.raises(SystemExit, match="infinite or NaN"):
        train(lazy, "optimizer.lr=1e12", "lr_multiplier.warmup_length=0.01")
    (file,) = (tmp_path / "output/non_finite").glob("*.pth")
    assert "give that with --config-file" in retina("replay", file, code=1)
    assert "Reproduced" in retina("replay", file, "--config-file", lazy)


def test_report(lazy, tmp_path):
    train(lazy, "train.max_iter=1", "REPORT=False")
    assert not (tmp_path / "output/report.html").exists()
    assert "report.html" in retina("report", tmp_path / "output")


def test_benchmark(lazy, tmp_path):
    options = ("--size", "64x96", "--repeats", "1", "--config-file", lazy)
    output = retina("benchmark", *options, "--part", "step", "--part", "data")
    assert "| step [s] " in output and "lazy_train" in output
    output = retina("benchmark", *options, "--against", "stock", code=1)
    assert "cannot be built of a LazyConfig" in output


def test_compare(lazy, tmp_path):
    """Two languages side by side: runs are processes of their own."""
    words = ["--images", "4", "--seeds", "1", "--out", str(tmp_path / "compared")]
    command = [sys.executable, "-W", "ignore", "-m", "retina_plugin.cli", "compare", *words]
    command += [f"a={lazy}", f"b={lazy} optimizer.lr=0.001", "--set", "SOLVER.LOG_GRAD_NORM=False"]
    path = f"{ROOT}:{ROOT / 'tests'}"
    environment = {"PYTHONPATH": path, "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    kept = json.loads((tmp_path / "compared/comparison.json").read_text())
    assert all(kept[x]["1"]["scores"]["lazy_test"] and kept[x]["1"]["images"] == 4 for x in "ab")
    assert len(list((tmp_path / "compared").glob("*/result.json"))) == 2
