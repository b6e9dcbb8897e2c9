"""`retina compare` from the command line: real runs of two steps, in processes of their own."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from retina_plugin.data.digits import prepare_digits

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    paths = prepare_digits(folder, train_images=4, val_images=2)
    data = []
    for split, name in (("TRAIN", "train"), ("TEST", "val")):
        key = f"DATASETS.COCO.{split}"
        data += [f"{key}.JSON={paths[name].json}", f"{key}.IMAGES={paths[name].images}"]
    return [part for pair in data for part in ("--set", pair)]


def command(out, *arguments):
    verb = [sys.executable, "-W", "ignore", "-m", "retina_plugin.cli", "compare"]
    return [*verb, "--out", str(out), *map(str, arguments)]


def compare(out, *arguments, code=0):
    done = subprocess.run(
        command(out, *arguments), capture_output=True, text=True, cwd=ROOT, timeout=600
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_trains_each_once_and_says_which_failed(options, tmp_path):
    arguments = (
        *("configs/quick.yaml", "giou=configs/quick.yaml MODEL.RETINANET.BBOX_REG_LOSS_TYPE=giou"),
        *("bad=configs/quick.yaml MODEL.RETINANET.BBOX_REG_LOSS_TYPE=jiou", *options),
        *("--seeds", "1", "--images", "4", "--jobs", "2"),
    )
    output = compare(tmp_path, *arguments, code=1)
    assert "3 of 3 runs to do" in output and "1 run(s) failed" in output
    assert re.search(r"bad, seed 1: failed.*\n    error: .*'jiou'.*giou", output)
    for row in ("quick ", "giou ", "bad "):
        assert f"\n| {row}" in output
    kept = json.loads((tmp_path / "comparison.json").read_text())
    assert kept["giou"]["1"]["images"] == 4 and kept["giou"]["1"]["scores"]
    assert (tmp_path / "comparison.png").is_file()

    results = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*/result.json")}
    assert len(results) == 2
    again = compare(tmp_path, *arguments, code=1)
    assert "1 of 3 runs to do, 2 are finished already" in again
    assert results == {file: file.stat().st_mtime_ns for file in tmp_path.glob("*/result.json")}
    listed = compare(tmp_path, *arguments, "--dry-run")
    assert listed.count("finished") == 2 and listed.count("to be trained") == 1


def test_an_interrupted_run_goes_on_from_its_last_checkpoint(options, tmp_path):
    every_step = ("--set", "SOLVER.CHECKPOINT_PERIOD=1", "--seeds", "1", *options)
    long = command(tmp_path, "configs/quick.yaml", "--images", "4000", *every_step)
    with subprocess.Popen(long, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        for _ in range(6000):  # on a busy machine its imports alone take minutes
            if any(tmp_path.glob("*/last_checkpoint")):
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
    (folder,) = (path.parent for path in tmp_path.glob("*/last_checkpoint"))
    at = int(re.search(r"\d+", (folder / "last_checkpoint").read_text())[0])
    assert not (folder / "result.json").exists()
    settings = json.loads((folder / "run.json").read_text())
    # the same run with an earlier end, so that the test has one
    settings["overrides"].append(f"SOLVER.MAX_ITER={at + 3}")
    (folder / "run.json").write_text(json.dumps(settings))
    worker = [sys.executable, "-m", "retina_plugin.workbench.compare.worker", str(folder)]
    subprocess.run(worker, cwd=ROOT, check=True, capture_output=True, timeout=300)
    assert f"Starting training from iteration {at + 1}" in (folder / "log.txt").read_text()
    assert json.loads((folder / "result.json").read_text())["scores"]
