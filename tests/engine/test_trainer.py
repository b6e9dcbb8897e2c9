"""The trainer continues where it stopped, evaluates what it trained, and refuses early."""

import json
import math
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from support.tiny_training import tiny_training_cfg

from retina_plugin.engine import trainer as engine_trainer
from retina_plugin.engine.trainer import RetinaTrainer, distribute, evaluate
from retina_plugin.registry import UnknownNameError


@pytest.fixture
def cfg(tmp_path):
    """Six steps on two images, which are every batch."""
    return tiny_training_cfg(tmp_path)


class Recorder(HookBase):
    """Losses and rates of every step; ends the training in a step as a power cut would."""

    def __init__(self, stop_before=None):
        self.steps = {}
        self.stop_before = stop_before

    def before_step(self):
        if self.trainer.iter == self.stop_before:
            raise KeyboardInterrupt

    def after_step(self):
        storage = self.trainer.storage
        self.steps[self.trainer.iter] = (
            storage.history("total_loss").latest(),
            self.trainer.optimizer.param_groups[0]["lr"],
            self.trainer.model.normalizer.average.item(),
        )


def train(cfg, *, resume=False, stop_before=None, seed=0):
    torch.manual_seed(seed)
    trainer = RetinaTrainer(cfg)
    recorder = Recorder(stop_before)
    trainer._hooks.insert(0, recorder)
    recorder.trainer = trainer
    trainer.resume_or_load(resume=resume)
    results = None
    if stop_before is None:
        results = trainer.train()
    else:
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
    return trainer, recorder.steps, results


def metrics(cfg):
    lines = (Path(cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    "optimizer, scheduler",
    [("SGD", "WarmupMultiStepLR"), ("AdamW", "WarmupCosineLR")],
)
def test_a_resumed_training_is_the_same_training(cfg, tmp_path, optimizer, scheduler):
    """Weights, momenta, rates, and the normalizer's average continue; compared step by step."""
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.LR_SCHEDULER_NAME = optimizer, scheduler
    whole, expected, _ = train(cfg)

    cfg.OUTPUT_DIR = str(tmp_path / "interrupted")
    _, first, _ = train(cfg, stop_before=5)
    assert list(first) == [0, 1, 2, 3, 4]  # of which the checkpoint after the third is left
    resumed, second, _ = train(cfg, resume=True, seed=99)
    assert list(second) == [3, 4, 5]
    for step, found in second.items():
        assert found == pytest.approx(expected[step], rel=1e-4), step
    assert expected[3][1] != expected[4][1]  # the rates that agree do change
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-5)


def with_average(cfg, **settings):
    """What the config holds once the keys are set; decay at once, so that it shows."""
    cfg.SOLVER.WEIGHT_AVERAGE = CfgNode({"DECAY": 0.8, "WARMUP": 2.0, **settings})


def averaged(trainer):
    with trainer.average.applied():
        return {name: x.clone() for name, x in trainer.model.state_dict().items()}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_training_has_the_same_average(cfg, tmp_path, accumulate):
    """Interrupted in the middle, with micro-batches as well."""
    with_average(cfg)
    cfg.SOLVER.ACCUMULATE = accumulate
    cfg.TEST.EVAL_PERIOD = 2  # evaluations between leave no trace
    whole, expected, _ = train(cfg)
    cfg.OUTPUT_DIR = str(tmp_path / "interrupted")
    cfg.TEST.EVAL_PERIOD = 0
    train(cfg, stop_before=5)
    resumed, second, _ = train(cfg, resume=True, seed=99)
    assert list(second) == [3, 4, 5] and resumed.average.updates == 6
    for step, found in second.items():
        assert found == pytest.approx(expected[step], rel=1e-4), step
    before = averaged(whole)
    for name, x in averaged(resumed).items():
        torch.testing.assert_close(x, before[name], rtol=1e-3, atol=1e-5, msg=name)
    weight = whole.model.head.cls_subnet[0].weight
    assert not torch.allclose(before["head.cls_subnet.0.weight"], weight, rtol=1e-3, atol=1e-5)


def test_a_checkpoint_restores_training_to_the_bit(cfg):
    with_average(cfg)
    first, _, _ = train(cfg)
    second = RetinaTrainer(cfg)
    second.resume_or_load(resume=True)
    for a, b in (
        (first.model.state_dict(), second.model.state_dict()),
        map(averaged, (first, second)),
    ):
        assert all(torch.equal(x, b[name]) for name, x in a.items())


def test_micro_batches_train_as_the_large_batch(cfg, tmp_path):
    _, expected, _ = train(cfg)
    cfg.SOLVER.ACCUMULATE, cfg.OUTPUT_DIR = 2, str(tmp_path / "parts")
    trainer, found, _ = train(cfg)
    assert len(next(iter(trainer.data_loader))) == 1
    for step, values in found.items():
        assert values == pytest.approx(expected[step], rel=1e-3), step


def test_results_are_those_of_the_averaged_weights(cfg, monkeypatch):
    """What training printed last, ``--eval-only`` finds in ``model_final.pth``; and both by key."""
    with_average(cfg, EVALUATE_BOTH=True)
    seen = []

    def look(cls, cfg, model, evaluators=None):
        weight = model.head.cls_score.weight.detach().clone()
        seen.append(weight)
        return {"bbox": {"AP": weight.double().norm().item()}}

    monkeypatch.setattr(RetinaTrainer, "test", classmethod(look))
    trainer, _, results = train(cfg)
    raw, average = seen
    assert torch.equal(raw, trainer.model.head.cls_score.weight) and not torch.equal(raw, average)
    assert results["bbox"] != results["raw"]["bbox"]
    assert metrics(cfg)[-1]["raw/bbox/AP"] == results["raw"]["bbox"]["AP"]
    for resume, weights in ((False, str(Path(cfg.OUTPUT_DIR) / "model_final.pth")), (True, "")):
        cfg.MODEL.WEIGHTS = weights
        assert evaluate(cfg, resume=resume) == {"bbox": results["bbox"]}
        assert torch.equal(seen[-1], average)


def test_cosine_after_a_linear_warm_up(cfg):
    """The rate of every step by its formula."""
    solver = cfg.SOLVER
    solver.LR_SCHEDULER_NAME, solver.BASE_LR_END = "WarmupCosineLR", 0.001
    solver.WARMUP_FACTOR = 0.1
    _, steps, _ = train(cfg)
    total, warmup = solver.MAX_ITER, solver.WARMUP_ITERS

    def cosine(t):
        end = solver.BASE_LR_END
        return end + (solver.BASE_LR - end) * (1 + math.cos(math.pi * t / total)) / 2

    start, end = 0.1 * cosine(0), cosine(warmup)
    for t, (_, rate, _) in steps.items():
        wanted = start + (end - start) * t / warmup if t < warmup else cosine(t)
        assert rate == pytest.approx(wanted, rel=1e-6), t


def test_without_resume_training_starts_anew(cfg):
    _, first, _ = train(cfg)
    _, again, _ = train(cfg)
    assert again.keys() == first.keys()
    for step, found in again.items():
        assert found == pytest.approx(first[step], rel=1e-5)


def test_resuming_with_another_config_is_refused(cfg):
    """The optimizer's state would not fit, and say so in the first step, in other words."""
    train(cfg)
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[1.0]]
    trainer = RetinaTrainer(cfg)
    with pytest.raises(
        ValueError, match=r"model_final.pth: .*bbox_pred.*config that it was trained"
    ):
        trainer.resume_or_load(resume=True)
    trainer.resume_or_load(resume=False)


def test_resuming_a_finished_training_evaluates_it(cfg):
    _, _, results = train(cfg)
    _, steps, again = train(cfg, resume=True)
    assert steps == {}
    assert again["bbox"] == pytest.approx(results["bbox"], nan_ok=True)


def test_results_are_those_of_the_saved_model(cfg):
    _, _, results = train(cfg)
    assert set(results["bbox"]) >= {"AP", "AP50", "AP-red"}
    cfg.MODEL.WEIGHTS = str(Path(cfg.OUTPUT_DIR) / "model_final.pth")
    assert evaluate(cfg, resume=False)["bbox"] == pytest.approx(results["bbox"], nan_ok=True)
    cfg.MODEL.WEIGHTS = ""
    assert evaluate(cfg, resume=True)["bbox"] == pytest.approx(results["bbox"], nan_ok=True)
    assert metrics(cfg)[-1]["bbox/AP50"] == pytest.approx(results["bbox"]["AP50"], nan_ok=True)


def test_loading_for_training_takes_weights_alone(cfg, tmp_path):
    """``MODEL.WEIGHTS`` of another training: its step, optimizer and normalizer stay behind."""
    train(cfg)
    cfg.MODEL.WEIGHTS = str(Path(cfg.OUTPUT_DIR) / "model_final.pth")
    cfg.OUTPUT_DIR = str(tmp_path / "finetuned")
    trainer = RetinaTrainer(cfg)
    trainer.resume_or_load(resume=True)  # there is nothing to resume
    assert trainer.start_iter == 0
    assert not trainer.optimizer.state
    assert trainer.model.normalizer.average == 100.0
    state = torch.load(cfg.MODEL.WEIGHTS, weights_only=True)["model"]
    assert torch.equal(trainer.model.head.cls_score.weight, state["head.cls_score.weight"])
    assert state["normalizer.average"] != 100.0


def test_expected_results_are_verified(cfg):
    train(cfg)
    cfg.MODEL.WEIGHTS = str(Path(cfg.OUTPUT_DIR) / "model_final.pth")
    cfg.TEST.EXPECTED_RESULTS = [["bbox", "AP", 99.0, 0.1]]
    with pytest.raises(SystemExit):
        evaluate(cfg, resume=False)


def test_no_test_set_no_results(cfg):
    cfg.DATASETS.TEST = ()
    assert train(cfg)[2] == {}


# ---- evaluation needs a whole detector


def test_evaluation_without_weights(cfg):
    with pytest.raises(ValueError, match=r"MODEL.WEIGHTS.* is empty"):
        evaluate(cfg, resume=False)


def test_evaluation_with_a_backbone_alone(cfg, tmp_path):
    state = RetinaTrainer.build_model(cfg).state_dict()
    backbone = {name: x for name, x in state.items() if name.startswith("backbone")}
    cfg.MODEL.WEIGHTS = str(tmp_path / "backbone.pth")
    torch.save(backbone, cfg.MODEL.WEIGHTS)
    with pytest.raises(ValueError, match=r"weights .*backbone.pth: .*\d+ are missing.*head"):
        evaluate(cfg, resume=False)
    RetinaTrainer(cfg).resume_or_load(resume=False)  # a training may start from it


# ---- what would end a training late is refused at once


def test_a_batch_that_the_workers_cannot_share(cfg, monkeypatch):
    monkeypatch.setattr(engine_trainer.comm, "get_world_size", lambda: 3)
    with pytest.raises(ValueError, match=r"SOLVER.IMS_PER_BATCH.*2 images.*3 workers"):
        RetinaTrainer(cfg)


def test_a_batch_that_micro_batches_cannot_share(cfg):
    cfg.SOLVER.ACCUMULATE = 3
    with pytest.raises(ValueError, match=r"SOLVER.IMS_PER_BATCH.*2 images.*3 micro-batches"):
        RetinaTrainer(cfg)


def test_an_average_has_no_precise_statistics(cfg):
    with_average(cfg)
    cfg.TEST.PRECISE_BN.ENABLED = True
    with pytest.raises(ValueError, match=r"TEST.PRECISE_BN.*WEIGHT_AVERAGE"):
        RetinaTrainer(cfg)


def test_unknown_optimizer(cfg):
    cfg.SOLVER.OPTIMIZER = "Adam"
    with pytest.raises(UnknownNameError, match=r"SOLVER.OPTIMIZER.*AdamW"):
        RetinaTrainer(cfg)


# ---- parts


def test_loaders_use_our_mapper(cfg):
    cfg.INPUT.AUGMENTATIONS = [{"NAME": "RandomZoomCrop", "size": 64}]
    batch = next(iter(RetinaTrainer.build_train_loader(cfg)))
    assert [given["image"].shape for given in batch] == [(3, 64, 64)] * 2
    given = next(iter(RetinaTrainer.build_test_loader(cfg, "test")))
    assert [x["image"].shape for x in given] == [(3, 96, 96)]


def test_loader_processes_take_our_augmentations(cfg):
    cfg.INPUT.AUGMENTATIONS = [{"NAME": "RandomQuarterTurn"}]
    cfg.DATALOADER.NUM_WORKERS = 1
    iterator = iter(RetinaTrainer.build_train_loader(cfg))
    assert len(next(iterator)) == 2


def test_channels_last_changes_the_layout_and_nothing_else(cfg):
    batch = next(iter(RetinaTrainer.build_train_loader(cfg)))
    results = []
    for channels_last in (False, True):
        cfg.MODEL.CHANNELS_LAST = channels_last
        torch.manual_seed(0)
        model = RetinaTrainer.build_model(cfg)
        weight = model.head.cls_subnet[0].weight
        assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last
        losses = model(batch)
        sum(losses.values()).backward()
        results.append([*losses.values(), weight.grad])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_evaluation_is_of_an_optimized_copy(cfg, monkeypatch):
    """The trained model stays as it is, and TEST.OPTIMIZE turns it off."""
    seen = []
    monkeypatch.setattr(
        engine_trainer.DefaultTrainer, "test", lambda cfg, model, evaluators: seen.append(model)
    )
    model = RetinaTrainer.build_model(cfg).train()
    RetinaTrainer.test(cfg, model)
    cfg.TEST.OPTIMIZE = False
    RetinaTrainer.test(cfg, model)
    optimized, plain = seen
    assert plain is model and model.training
    assert optimized is not model and not optimized.training
    assert optimized.head.cls_score.weight.is_contiguous(memory_format=torch.channels_last)


def test_one_worker_needs_no_wrapping(cfg):
    model = RetinaTrainer.build_model(cfg)
    assert distribute(model) is model


def test_reference_world_size_scales_as_detectron2_does(cfg):
    cfg.SOLVER.REFERENCE_WORLD_SIZE = 2  # the config is written for two workers: here is one
    trainer = RetinaTrainer(cfg)
    assert trainer.max_iter == 12
    assert trainer.cfg.SOLVER.IMS_PER_BATCH == 1
