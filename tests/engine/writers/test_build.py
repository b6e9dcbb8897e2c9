"""Detectron2's writers, and services that get the same numbers and pictures."""

import inspect
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from detectron2.utils.events import EventStorage, JSONWriter, TensorboardXWriter
from support.tiny_training import tiny_training_cfg, train_scripted

from retina_plugin.engine.trainer import RetinaTrainer
from retina_plugin.engine.writers.build import build_writers
from retina_plugin.registry import UnknownNameError


class Calls:
    """Functions with the parameters of the real ones, which note how they were called."""

    def __init__(self):
        self.made = []

    def function(self, name, signature, result=None):
        parameters = inspect.signature(signature)

        def call(*args, **options):
            bound = parameters.bind(*args, **options)
            self.made.append((name, bound.arguments))
            return result

        return call

    def of(self, name):
        return [dict(arguments) for called, arguments in self.made if called == name]


@pytest.fixture
def wandb(monkeypatch):
    """The parts of wandb 0.2x that are used, by its signatures."""
    calls = Calls()
    run = SimpleNamespace(
        id="run7",
        log=calls.function("log", lambda data, step=None, commit=None: None),
        save=calls.function("save", lambda glob_str, base_path=None, policy="live": None),
        finish=calls.function("finish", lambda exit_code=None: None),
    )

    def init(
        entity=None, project=None, dir=None, id=None, name=None, notes=None, tags=None,
        config=None, config_exclude_keys=None, resume=None,
    ): ...  # fmt: skip

    module = SimpleNamespace(init=calls.function("init", init, run), Image=np.asarray)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return calls


@pytest.fixture
def mlflow(monkeypatch):
    """The parts of mlflow 2 and 3 that are used, by their signatures."""
    calls = Calls()
    run = SimpleNamespace(info=SimpleNamespace(run_id="run8"))
    signatures = {
        "start_run": (lambda run_id=None, experiment_id=None, run_name=None, nested=False: None),
        "log_params": lambda params, synchronous=None, run_id=None: None,
        "log_metrics": lambda metrics, step=None, synchronous=None, run_id=None: None,
        "log_image": lambda image, artifact_file=None, key=None, step=None: None,
        "log_artifact": lambda local_path, artifact_path=None, run_id=None: None,
        "end_run": lambda status="FINISHED": None,
    }
    made = {name: calls.function(name, x, run) for name, x in signatures.items()}
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(**made))
    return calls


@pytest.fixture
def cfg(tmp_path):
    """An evaluation in the middle, pictures of two steps, both services."""
    keys = ("TEST.EVAL_PERIOD", 3, "VIS_PERIOD", 4, "LOGGERS", ["wandb", "mlflow"])
    return tiny_training_cfg(tmp_path, *keys)


def test_services_get_what_metrics_json_has(cfg, wandb, mlflow):
    train_scripted(cfg, [1.0, 2.0])
    folder = Path(cfg.OUTPUT_DIR)
    lines = [json.loads(x) for x in (folder / "metrics.json").read_text().splitlines()]
    lines = {line.pop("iteration"): line for line in lines}
    assert lines[2]["bbox/AP"] == 1.0 and lines[6]["bbox/AP"] == 2.0
    numbers = [x for x in wandb.of("log") if not any("truth" in name for name in x["data"])]
    assert {x["step"]: x["data"] for x in numbers} == lines
    of_mlflow = {x["step"]: x["metrics"] for x in mlflow.of("log_metrics")}
    assert of_mlflow == lines
    steps = [x["step"] for x in wandb.of("log")]
    assert steps == sorted(steps)  # else W&B drops them
    pictures = [x for x in wandb.of("log") if any("truth" in name for name in x["data"])]
    assert [x["step"] for x in pictures] == [0, 4]
    (picture,) = pictures[0]["data"].values()
    assert picture.shape[0] == 96 and picture.shape[2] == 3 and picture.dtype == np.uint8
    names = [x["artifact_file"] for x in mlflow.of("log_image")]
    assert names == [
        f"pictures/ground_truth___20_best_predictions/{step:07d}.png" for step in (0, 4)
    ]


def test_the_run_its_config_and_its_files(cfg, wandb, mlflow):
    folder = Path(cfg.OUTPUT_DIR)
    folder.mkdir()
    (folder / "config.yaml").write_text("A: 1")
    train_scripted(cfg, [1.0, 2.0])
    (init,) = wandb.of("init")
    assert init["config"] == yaml.safe_load(cfg.dump())
    assert (init["dir"], init["name"], init["id"]) == (str(folder), "output", None)
    (parameters,) = mlflow.of("log_params")
    assert parameters["params"]["SOLVER.BASE_LR"] == 0.01 and len(parameters["params"]) == 12
    sent = [Path(x["local_path"]).name for x in mlflow.of("log_artifact")]
    assert sent == [Path(x["glob_str"]).name for x in wandb.of("save")]
    assert sent == ["config.yaml", "curves.png", "metrics.json"]
    assert len(wandb.of("finish")) == len(mlflow.of("end_run")) == 1


def test_a_resumed_training_goes_on_in_its_run(cfg, wandb, mlflow):
    train_scripted(cfg, [1.0], stop_before=4)
    train_scripted(cfg, [2.0], resume=True)
    assert [x["id"] for x in wandb.of("init")] == [None, "run7"]
    assert [x["run_id"] for x in mlflow.of("start_run")] == [None, "run8"]
    assert len(mlflow.of("log_params")) == 1


def test_tensorboard_has_the_pictures_too(cfg, wandb, tmp_path):
    writers = build_writers(tmp_path, 10, loggers=["wandb"])
    assert isinstance(writers[-1], TensorboardXWriter) and isinstance(writers[1], JSONWriter)
    with EventStorage() as storage:
        storage.put_image("a", np.zeros((3, 4, 5), np.uint8))
        for writer in writers[2:]:
            writer.write()
        assert storage._vis_data == []
    (logged,) = wandb.of("log")
    assert logged["data"]["a"].shape == (4, 5, 3)
    assert list(tmp_path.glob("events.*"))


def test_a_missing_package_is_named_before_training(cfg, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match=r'LOGGERS has wandb.*pip install "retina-plugin.wandb'):
        RetinaTrainer(cfg)


def test_an_unknown_service(cfg):
    cfg.LOGGERS = ["comet"]
    with pytest.raises(UnknownNameError, match=r"LOGGERS: 'comet' is unknown.*mlflow, wandb"):
        RetinaTrainer(cfg)
