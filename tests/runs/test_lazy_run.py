"""LazyConfig: the worked config is our yaml's model, and training resumes and evaluates."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from support.batches import make_batch
from support.model_pairs import assert_same_detections, assert_same_step, calibrate
from support.tiny_lazy_config import WORKED, write_tiny_lazy_config
from torch import nn

from retina_plugin import TiledDetector
from retina_plugin.config.config_file import load_config
from retina_plugin.config.lazy_file import load_lazy
from retina_plugin.config.safe_yaml import ConfigFileError
from retina_plugin.engine import trainer
from retina_plugin.engine.arguments import argument_parser
from retina_plugin.engine.trainer import RetinaTrainer
from retina_plugin.registry import UnknownNameError
from retina_plugin.runs.load_run import load_run
from retina_plugin.workbench.job import run_job

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config_file(tmp_path):
    return write_tiny_lazy_config(tmp_path)


def arguments(config_file, *opts, resume=False, eval_only=False):
    flags = {"--resume": resume, "--eval-only": eval_only}
    words = [word for word, is_on in flags.items() if is_on]
    return argument_parser().parse_args([*words, "--config-file", str(config_file), *opts])


def weights(path):
    return torch.load(path, weights_only=True)["model"]


# ---- the worked config


class Models:
    """Our yaml's and our LazyConfig's, in the places that the comparisons look at."""

    def __init__(self, batch):
        cfg = load_config(ROOT / "configs/retinanet_R_50_FPN_1x.yaml", ["MODEL.DEVICE", "cpu"])
        cfg.MODEL.RETINANET.NUM_CLASSES = 80
        self.cfg = cfg
        self.stock = build_model(cfg)
        calibrate(self.stock, batch)
        self.ours = instantiate(load_lazy(str(WORKED)).model)
        self.ours.load_state_dict(self.stock.state_dict())

    def train(self, mode):
        self.stock.train(mode)
        self.ours.train(mode)


def test_worked_config_is_our_yamls_model():
    """The same weights and images give the same losses, gradients and detections."""
    batch = make_batch(counts=(4, 2), sizes=((96, 128),), num_classes=80)
    models = Models(batch)
    stock, ours = (
        {n for n, p in model.named_parameters() if p.requires_grad}
        for model in (models.stock, models.ours)
    )
    assert ours == stock
    assert_same_step(models, batch)
    assert_same_detections(models, batch)

    lazy_cfg = load_lazy(str(WORKED))
    lazy_cfg.optimizer.params.model = models.stock
    optimizers = build_optimizer(models.cfg, models.stock), instantiate(lazy_cfg.optimizer)
    groups = [settings(optimizer) for optimizer in optimizers]
    assert groups[0] == groups[1]


def settings(optimizer):
    """What a step does with each parameter, by its id."""
    keys = ("lr", "momentum", "weight_decay", "nesterov")
    return {
        id(parameter): [group[key] for key in keys]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def test_worked_config_trains_as_our_yaml_does():
    cfg, lazy_cfg = load_config(ROOT / "configs/retinanet_R_50_FPN_1x.yaml"), load_lazy(str(WORKED))
    assert lazy_cfg.train.max_iter == cfg.SOLVER.MAX_ITER
    assert lazy_cfg.train.init_checkpoint == cfg.MODEL.WEIGHTS
    assert lazy_cfg.dataloader.train.total_batch_size == cfg.SOLVER.IMS_PER_BATCH
    assert (lazy_cfg.dataloader.train.dataset.names,) == cfg.DATASETS.TRAIN
    resize, flip = lazy_cfg.dataloader.train.mapper.augmentations
    assert tuple(resize.short_edge_length) == tuple(cfg.INPUT.MIN_SIZE_TRAIN)
    assert flip.horizontal
    multiplier = instantiate(lazy_cfg.lr_multiplier)
    steps = (0, 59_999, 60_000, 79_999, 80_000, 89_999)
    rates = [multiplier(step / cfg.SOLVER.MAX_ITER) for step in steps]
    assert rates == pytest.approx([0.001, 1, 0.1, 0.1, 0.01, 0.01])


def test_worked_config_can_be_saved(tmp_path):
    LazyConfig.save(load_lazy(str(WORKED)), str(tmp_path / "saved.yaml"))
    again = LazyConfig.load(str(tmp_path / "saved.yaml"))
    assert isinstance(instantiate(again.model.cls_loss), nn.Module)


# ---- training


def test_training_writes_and_evaluation_repeats_its_results(config_file, tmp_path):
    results = run_job(arguments(config_file, "train.log_period=1"))
    assert set(results["bbox"]) >= {"AP", "AP50", "AP-red"}
    output = tmp_path / "output"
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines if "total_loss" in line] == [0, 1, 2, 3]
    assert lines[-1]["bbox/AP50"] == pytest.approx(results["bbox"]["AP50"], nan_ok=True)
    assert list(output.glob("events.out.tfevents.*"))
    assert "eta" in (output / "log.txt").read_text()

    final = f"train.init_checkpoint={output / 'model_final.pth'}"
    for words in (
        arguments(config_file, final, eval_only=True),
        arguments(config_file, eval_only=True, resume=True),
    ):
        assert run_job(words)["bbox"] == pytest.approx(results["bbox"], nan_ok=True)


def test_a_resumed_training_is_the_same_training(config_file, tmp_path):
    run_job(arguments(config_file))
    output = tmp_path / "output"
    expected = weights(output / "model_final.pth")
    half = weights(output / "model_0000001.pth")
    assert not torch.equal(half["head.cls_score.weight"], expected["head.cls_score.weight"])

    (output / "model_final.pth").unlink()
    (output / "metrics.json").unlink()
    (output / "last_checkpoint").write_text("model_0000001.pth")
    run_job(arguments(config_file, "train.seed=9", "train.log_period=1", resume=True))
    found = weights(output / "model_final.pth")
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5)
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines if "total_loss" in line] == [2, 3]


AVERAGE = "\ntrain.weight_average = dict(decay=0.8, warmup=2, evaluate_both=True)\n"


def test_averaged_weights_are_evaluated_saved_and_resumed(config_file, tmp_path):
    """With micro-batches as well; ``total_batch_size`` is the step's."""
    with config_file.open("a") as file:
        file.write(f"{AVERAGE}train.accumulate = 2\n")
    results = run_job(arguments(config_file))
    assert results["raw"]["bbox"].keys() == results["bbox"].keys()
    output = tmp_path / "output"
    expected = torch.load(output / "model_final.pth", weights_only=True)
    trained = expected["weight_average"]["trained"]["head.cls_score.weight"]
    assert not torch.equal(trained, expected["model"]["head.cls_score.weight"])
    (output / "last_checkpoint").write_text("model_0000001.pth")
    run_job(arguments(config_file, resume=True))
    again = torch.load(output / "model_final.pth", weights_only=True)
    assert again["weight_average"]["updates"] == 4
    for name, tensor in expected["model"].items():
        torch.testing.assert_close(again["model"][name], tensor, rtol=1e-3, atol=1e-5)


def test_micro_batches_that_do_not_fit(config_file):
    with config_file.open("a") as file:
        file.write("train.accumulate = 3\n")
    with pytest.raises(SystemExit, match=r"2 images.*3 micro-batches"):
        run_job(arguments(config_file))


def test_without_an_evaluator_there_are_no_results(config_file):
    with config_file.open("a") as file:
        file.write("del dataloader['evaluator']\n")
    assert run_job(arguments(config_file, "train.max_iter=1")) == {}


def test_no_cuda_falls_back_to_the_cpu(config_file, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run_job(arguments(config_file, "train.max_iter=1", "train.device=cuda"))
    log = (tmp_path / "output/log.txt").read_text()
    assert "MODEL.DEVICE is cuda, but there is no CUDA here: using the CPU" in log


def test_options_of_the_workers_reach_detectron2(config_file, monkeypatch):
    given = {}
    monkeypatch.setattr(
        trainer, "distribute", lambda model, **options: given.update(options) or model
    )
    run_job(arguments(config_file, "train.max_iter=1", "train.ddp.find_unused_parameters=True"))
    assert given["find_unused_parameters"] is True
    assert given["broadcast_buffers"] is False


# ---- overrides and mistakes


def test_overrides_and_new_arguments(config_file):
    words = ["train.max_iter=7", "model.vis_period=5", "optimizer.nesterov=True"]
    cfg = load_lazy(str(config_file), words)
    assert (cfg.train.max_iter, cfg.model.vis_period, cfg.optimizer.nesterov) == (7, 5, True)


@pytest.mark.parametrize(
    "override, message",
    [
        ("train.max_itr=7", r"train.max_itr: 'max_itr' is unknown. Did you mean max_iter"),
        ("trian.max_iter=7", r"'trian' is unknown. Did you mean train"),
        ("train.amp.enabel=True", r"'enabel' is unknown.*enabled"),
    ],
)
def test_a_misspelt_override_lists_the_valid_keys(config_file, override, message):
    with pytest.raises(UnknownNameError, match=message):
        load_lazy(str(config_file), [override])


@pytest.mark.parametrize("words", [["train.max_iter", "7"], ["train.max_iter"]])
def test_an_override_without_equals(config_file, words):
    with pytest.raises(ConfigFileError, match=r"train.max_iter: .*path.key=value"):
        load_lazy(str(config_file), words)


def test_no_such_file(tmp_path):
    with pytest.raises(ConfigFileError, match=r"none.py: there is no such"):
        load_lazy(str(tmp_path / "none.py"))


def test_a_file_that_is_no_whole_config(tmp_path):
    (tmp_path / "half.py").write_text("model = dict()\ntrain = dict()\n")
    with pytest.raises(ConfigFileError, match=r"half.py.*lacks dataloader, optimizer, lr_mult"):
        load_lazy(str(tmp_path / "half.py"))


def test_evaluation_without_weights(config_file):
    with pytest.raises(SystemExit, match=r"train.init_checkpoint\) is empty"):
        run_job(arguments(config_file, eval_only=True))


def test_output_of_an_earlier_run_does_not_matter_without_resume(config_file, tmp_path):
    run_job(arguments(config_file))
    first = weights(tmp_path / "output/model_final.pth")
    shutil.copytree(tmp_path / "output", tmp_path / "kept")
    run_job(arguments(config_file))
    again = weights(tmp_path / "output/model_final.pth")
    for name, tensor in first.items():
        torch.testing.assert_close(again[name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimize", [True, False])
def test_evaluation_is_of_an_optimized_copy(config_file, optimize):
    run = load_run(config_file, [f"train.optimize_inference={optimize}"])
    model = run.build_model()
    assert (RetinaTrainer.build_detector(run.settings, model) is not model) == optimize


def test_evaluation_by_tiles(config_file):
    words = ["train.test_tiles.size=64", "train.test_tiles.overlap=16"]
    run = load_run(config_file, words)
    tiled = RetinaTrainer.build_detector(run.settings, run.build_model())
    assert (type(tiled), tiled.size, tiled.overlap) == (TiledDetector, 64, 16)
    words[1] = "train.test_tiles.overlap=64"
    with pytest.raises(SystemExit, match=r"OVERLAP .* less than TEST_SIZE 64, got 64"):
        run_job(arguments(config_file, *words))  # before the training


def test_mixed_precision_by_override(config_file):
    """bfloat16 on the CPU; float16 is refused there."""
    results = run_job(arguments(config_file, "train.amp.enabled=True"))
    assert "bbox" in results
    with pytest.raises(SystemExit, match=r"AMP.PRECISION is float16"):
        run_job(arguments(config_file, "train.amp.enabled=True", "train.amp.precision=float16"))
