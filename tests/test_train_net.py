"""train_net.py as its users start it: real data, loader and evaluator, real processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from support.block_data import as_overrides, write_blocks
from support.tiny_lazy_config import WORKED, write_tiny_lazy_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from retina_plugin.config.config_file import load_config
from retina_plugin.data.coco_registration import register_datasets
from retina_plugin.data.digits import prepare_digits
from retina_plugin.data.package_files import register_package_paths
from retina_plugin.engine.trainer import RetinaTrainer

ROOT = Path(__file__).parents[1]
MINUTES = 60.0


def command(
    *words: str, launcher: tuple[str, ...] = (), output: int | IO[str] = subprocess.PIPE
) -> subprocess.Popen:
    """Start ``train_net.py`` on one thread, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", *launcher, "train_net.py", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "tests")},
        stdout=output,
        stderr=output,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen, code: int = 0) -> tuple[str, str]:
    """What the process printed to both streams, when it is over."""
    try:
        output, errors = process.communicate(timeout=10 * MINUTES)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == code, output[-3000:] + errors[-3000:]
    return output, errors


def metrics(folder: Path) -> list[dict]:
    path = folder / "metrics.json"
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []  # whole lines
    return [json.loads(line) for line in lines]


def printed_ap(output: str) -> list[float]:
    """The last line of numbers that Detectron2 prints to be copied: AP, AP50, AP75, ..."""
    lines = re.findall(r"copypaste: ([\d.,nan-]+)$", output, re.MULTILINE)
    return [float(number) for number in lines[-1].split(",")]


def wait_for(condition, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + 10 * MINUTES
    while not condition():
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < end
        time.sleep(0.05)


# ---- a real training, cut off half-way

STEPS, HALF = 120, 60


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return prepare_digits(tmp_path_factory.mktemp("digits"), train_images=160, val_images=40)


@pytest.fixture(scope="module")
def words(digits):
    """Minutes on COCO's scale are seconds here: few images, a frozen stem, a short schedule."""
    return [
        *("--config-file", "configs/digits.yaml"),
        *as_overrides(digits["train"], digits["val"]),
        *("MODEL.DEVICE", "cpu", "MODEL.CHANNELS_LAST", "True", "MODEL.BACKBONE.FREEZE_AT", "2"),
        *("SOLVER.MAX_ITER", str(STEPS), "SOLVER.CHECKPOINT_PERIOD", str(HALF)),
        *("SOLVER.WARMUP_ITERS", "20"),
        *("DATALOADER.NUM_WORKERS", "1", "VIS_PERIOD", "50", "SEED", "1"),
        *("MODEL.RETINANET.NORMALIZER.EMANormalizer.MOMENTUM", "0.999"),  # a long memory to lose
    ]


@pytest.fixture(scope="module")
def trained(words, tmp_path_factory):
    """Folder of a training that was killed after its first checkpoint, and the second's output."""
    folder = tmp_path_factory.mktemp("trained")
    log = folder / "printed.txt"  # a pipe that nobody reads stops its writer after 64 KiB
    with log.open("w") as output:
        process = command(*words, "OUTPUT_DIR", folder, output=output)
    try:
        wait_for(lambda: any(m["iteration"] == HALF - 1 for m in metrics(folder)), process, log)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert (folder / "last_checkpoint").read_text() == f"model_{HALF - 1:07d}.pth"
    resume = [words[0], words[1], "--resume", *words[2:]]
    return folder, finish(command(*resume, "OUTPUT_DIR", folder))[0]


def test_resumed_at_the_next_step(trained):
    folder, output = trained
    assert f"Starting training from iteration {HALF}" in output
    steps = [line["iteration"] for line in metrics(folder) if "total_loss" in line]
    assert steps[-3:] == [79, 99, 119]
    checkpoint = torch.load(folder / "model_final.pth", weights_only=True)
    assert checkpoint["iteration"] == STEPS - 1
    optimizer = checkpoint["trainer"]["_trainer"]["optimizer"]
    assert {state["step"].item() for state in optimizer["state"].values()} == {STEPS}


def test_loss_curve_and_rates_continue(trained, words):
    folder, _ = trained
    lines = {line["iteration"]: line for line in metrics(folder) if "total_loss" in line}
    losses = [lines[step]["total_loss"] for step in (19, 39, 59, 79, 99, 119)]
    assert losses[3] < losses[2] * 1.05  # a fresh head's loss is three times that
    assert losses == pytest.approx(sorted(losses, reverse=True), rel=0.1)
    assert losses[-1] < losses[0] / 2

    cfg = load_config(words[1], words[2:])
    cfg.SOLVER.OPTIMIZER = "SGD"
    rate = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=cfg.SOLVER.BASE_LR)
    scheduler = RetinaTrainer.build_lr_scheduler(cfg, rate)
    expected = []
    for _ in range(STEPS):
        expected.append(rate.param_groups[0]["lr"])
        rate.step()
        scheduler.step()
    for step, line in lines.items():
        logged = line["lr"] / expected[step]  # of one of the groups, Detectron2 says
        assert min(abs(logged - 1), abs(logged - cfg.SOLVER.BACKBONE_LR_FACTOR)) < 1e-6


def test_normalizer_continues(trained):
    """It has gone twice as far from where it began; begun anew, it would be where it was."""
    folder, _ = trained
    half, final = (
        100 - torch.load(path, weights_only=True)["model"]["normalizer.average"].item()
        for path in (folder / f"model_{HALF - 1:07d}.pth", folder / "model_final.pth")
    )
    assert final / half == pytest.approx(2, rel=0.25)


def test_it_has_learnt(trained, words):
    """It reaches AP50 13 on photographs and handwriting that it never saw."""
    folder, output = trained
    reached = metrics(folder)[-1]
    assert reached["bbox/AP50"] > 5
    assert printed_ap(output)[:2] == pytest.approx(
        [reached["bbox/AP"], reached["bbox/AP50"]], abs=1e-4
    )
    assert untrained_ap50(words, folder) < 1


def untrained_ap50(words, folder):
    """Of the pretrained backbone under an untrained head, whatever its scores."""
    known = set(DatasetCatalog.list())
    register_package_paths()
    overrides = ["MODEL.RETINANET.SCORE_THRESH_TEST", 0.0, "OUTPUT_DIR", folder / "untrained"]
    cfg = load_config(words[1], [*words[2:], *map(str, overrides)])
    register_datasets(cfg)
    trainer = RetinaTrainer(cfg)
    trainer.resume_or_load(resume=False)
    results = RetinaTrainer.test(cfg, trainer.model)
    for name in set(DatasetCatalog.list()) - known:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)
    return results["bbox"]["AP50"]


@pytest.mark.parametrize("workers", [1, 2])
def test_evaluation_gives_what_training_printed(trained, words, tmp_path, workers):
    """By one worker, and by two that share the images."""
    folder, output = trained
    flags = ("--eval-only", "--num-gpus", workers)
    overrides = ("MODEL.WEIGHTS", folder / "model_final.pth", "DATALOADER.NUM_WORKERS", 0)
    evaluation = command(*words[:2], *flags, *words[2:], *overrides, "OUTPUT_DIR", tmp_path)
    again, _ = finish(evaluation)
    assert printed_ap(again) == pytest.approx(printed_ap(output), abs=1e-3, nan_ok=True)
    assert f"World size: {workers}" in again
    assert (tmp_path / "inference/digits_val/coco_instances_results.json").is_file()


def test_progress_is_on_the_screen(trained):
    _, output = trained
    assert re.search(r"eta: 0:\d\d:\d\d\s+iter: 79\s+total_loss: [\d.]+\s+loss_cls: [\d.]+", output)


def test_tensorboard_has_curves_and_pictures(trained):
    folder, _ = trained
    assert len(list(folder.glob("events.out.tfevents.*"))) == 2  # one a start
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    assert {"total_loss", "loss_cls", "loss_box_reg", "lr", "bbox/AP50"} <= {*tags["scalars"]}
    steps = {image.step for tag in tags["images"] for image in events.Images(tag)}
    assert 100 in steps  # VIS_PERIOD 50, after the resume
    image = events.Images(tags["images"][0])[0]
    assert min(image.width, image.height) >= 160


# ---- workers, on a network that takes no time

BLOCKS = [
    *("MODEL.META_ARCHITECTURE", "FocalRetinaNet"),
    *("MODEL.DEVICE", "cpu"),
    *("MODEL.BACKBONE.NAME", "build_tiny_fpn_backbone"),
    *("MODEL.ANCHOR_GENERATOR.NAME", "OctaveAnchorGenerator"),
    *("MODEL.ANCHOR_GENERATOR.SIZES", "[[16], [32], [64], [128], [256]]"),
    *("MODEL.RETINANET.NUM_CONVS", "1", "MODEL.RETINANET.NORM", "GN"),
    *("MODEL.RETINANET.NORMALIZER.EMANormalizer.AVERAGE_OVER_WORKERS", "True"),
    *("INPUT.AUGMENTATIONS", "[{'NAME': 'Identity'}]", "INPUT.MIN_SIZE_TEST", "96"),
    *("SOLVER.IMS_PER_BATCH", "4", "SOLVER.MAX_ITER", "5", "SOLVER.WARMUP_ITERS", "2"),
    *("MODEL.RETINANET.SCORE_THRESH_TEST", "0.0", "DATALOADER.NUM_WORKERS", "0", "SEED", "3"),
]
EXTENSION = (
    *("--import", "tests/support/tiny_models.py"),
    *("--import", "tests/support/identity_augmentation.py"),
)


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blocks")
    return as_overrides(*(write_blocks(folder, split, 6) for split in ("train", "test")))


@pytest.fixture(scope="module")
def by_launcher(blocks, tmp_path_factory):
    """The same training by one worker, by two and by two of torchrun's, all at the same time."""
    folder = tmp_path_factory.mktemp("launchers")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    ways = {
        "one": ((), (), 0),
        "two": (("--num-gpus", "2"), (), 1),  # spawned, and spawning the loader's processes
        "torchrun": ((), torchrun, 0),
    }
    processes = {}
    for name, (flags, launcher, loaders) in ways.items():
        own = ("OUTPUT_DIR", folder / name, "DATALOADER.NUM_WORKERS", loaders)
        processes[name] = command(*EXTENSION, *flags, *BLOCKS, *blocks, *own, launcher=launcher)
    outputs = {name: finish(process)[0] for name, process in processes.items()}
    return folder, outputs


def test_two_workers_train_a_lazy_config(tmp_path):
    words = ("--config-file", write_tiny_lazy_config(tmp_path), "--num-gpus", 2)
    output, _ = finish(command(*words, "train.log_period=1"))
    folder = tmp_path / "output"
    steps = [line["iteration"] for line in metrics(folder) if "total_loss" in line]
    assert steps == [0, 1, 2, 3]
    assert (folder / "model_final.pth").is_file()
    assert len(list(folder.glob("events.*"))) == 1
    assert output.count("Starting training from iteration 0") == 1
    assert len(printed_ap(output)) == 6


@pytest.mark.parametrize("name", ["two", "torchrun"])
def test_two_workers_train_as_one(by_launcher, name):
    """Each has half of the same batches: the weights after five steps are the same."""
    folder, outputs = by_launcher
    assert "World size: 2" in outputs[name]
    ap = printed_ap(outputs["one"])
    assert not all(value != value for value in ap)
    assert printed_ap(outputs[name]) == pytest.approx(ap, abs=0.01, nan_ok=True)
    expected, found = (
        torch.load(folder / which / "model_final.pth", weights_only=True)["model"]
        for which in ("one", name)
    )
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-3, atol=1e-5)
    losses = [
        line["total_loss"]
        for which in ("one", name)
        for line in metrics(folder / which)
        if "total_loss" in line
    ]
    assert len(losses) == 2
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize("name", ["two", "torchrun"])
def test_only_the_main_worker_writes(by_launcher, name):
    folder, outputs = by_launcher
    files = {
        way: {re.sub(r"events.out.*", "events", path.name) for path in (folder / way).iterdir()}
        for way in ("one", name)
    }
    assert files[name] == files["one"] | {"log.txt.rank1"}
    assert len(list((folder / name).glob("events.*"))) == 1
    steps = [line["iteration"] for line in metrics(folder / name) if "total_loss" in line]
    assert len(steps) == len(set(steps)) > 0
    assert outputs[name].count("Starting training from iteration 0") == 1


# ---- a run's folder


def test_a_run_stops_early_and_is_taken_up_again(blocks, tmp_path):
    """No AP is worse than one more than 200 above it: the first evaluation is the best."""
    stop = ("TEST.EVAL_PERIOD", 1, "TEST.EARLY_STOPPING.MIN_DELTA", 200.0)
    words = (*BLOCKS, *blocks, "OUTPUT_DIR", tmp_path, *stop, "SOLVER.KEEP_CHECKPOINTS", 1)
    patience = "TEST.EARLY_STOPPING.PATIENCE"
    output, _ = finish(command(*EXTENSION, *words, patience, 2))
    assert "the training stops after 3 steps" in output
    assert evaluations(tmp_path) == [0, 1, 2]
    files = {path.name for path in tmp_path.iterdir()}
    assert {"model_best.pth", "model_final.pth", "curves.png", "environment.json"} <= files
    output, _ = finish(command(*EXTENSION, "--resume", *words, patience, 3))
    assert "Starting training from iteration 3" in output
    assert "the training stops after 4 steps" in output
    assert evaluations(tmp_path) == [0, 1, 2, 3]
    best = torch.load(tmp_path / "model_best.pth", weights_only=True)["best"]
    found = {x["iteration"]: x["bbox/AP"] for x in metrics(tmp_path) if "bbox/AP" in x}
    assert best["value"] == max(found.values()) == found[best["iteration"]]
    files = {path.name for path in (tmp_path / "history").iterdir()}
    assert files == {"config_1.yaml", "environment_1.json"}


def evaluations(folder):
    return [x["iteration"] for x in metrics(folder) if "validation/total_loss" in x]


# ---- the user's mistakes

MISTAKES = {
    "architecture": (
        ("MODEL.META_ARCHITECTURE", "FocalRetinanet"),
        r"error: MODEL.META_ARCHITECTURE: 'FocalRetinanet' is unknown. Did you mean FocalRetinaNet",
    ),
    "component": (
        ("MODEL.RETINANET.FOCAL_LOSS_GAMMA", "-1.0"),
        r"error: MODEL.RETINANET.FOCAL_LOSS_GAMMA must be >= 0, got -1.0",
    ),
    "weights": (("MODEL.WEIGHTS", "none.pth"), r"error: MODEL.WEIGHTS .*there is no file none.pth"),
}


def test_mistakes_end_with_the_message_alone(blocks, tmp_path):
    processes = {
        name: command(*EXTENSION, *BLOCKS, *blocks, "OUTPUT_DIR", tmp_path / name, *overrides)
        for name, (overrides, _) in MISTAKES.items()
    }
    processes["lazy"] = command("--config-file", WORKED, "train.max_itr=1")
    messages = {name: message for name, (_, message) in MISTAKES.items()}
    messages["lazy"] = "error: override train.max_itr: 'max_itr' is unknown. Did you mean max_iter"
    for name, message in messages.items():
        output, errors = finish(processes[name], code=1)
        assert re.match(message, errors.strip().splitlines()[-1]), errors
        assert "Traceback" not in output + errors


def test_of_two_workers_one_says_it(blocks, tmp_path):
    overrides, message = MISTAKES["architecture"]
    words = (*EXTENSION, "--num-gpus", 2, *BLOCKS, *blocks, "OUTPUT_DIR", tmp_path, *overrides)
    output, errors = finish(command(*words), code=1)
    assert re.search(message, errors, re.MULTILINE)
    assert (output + errors).count("error:") == 1
    assert "Traceback" not in output + errors
