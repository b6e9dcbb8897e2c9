"""``model_best.pth`` is what was evaluated when it was best, whatever else happens."""

import math
from pathlib import Path

import pytest
import torch
from support.tiny_training import tiny_training_cfg, train_scripted

from retina_plugin.engine.hooks.best_model import read_best
from retina_plugin.engine.trainer import RetinaTrainer, evaluate
from retina_plugin.registry import UnknownNameError


@pytest.fixture
def cfg(tmp_path):
    """An evaluation after every step; a checkpoint after every second one."""
    return tiny_training_cfg(tmp_path, "TEST.EVAL_PERIOD", 1, "SOLVER.CHECKPOINT_PERIOD", 2)


def best(cfg):
    path = Path(cfg.OUTPUT_DIR) / "model_best.pth"
    return read_best(path), torch.load(path, weights_only=True)["model"]["head.cls_score.weight"]


def test_the_best_is_kept_and_the_last_is_what_is_resumed(cfg):
    trainer = train_scripted(cfg, [1.0, 3.0, math.nan, 2.0, 3.0, 2.5])
    record, weight = best(cfg)
    assert record == {"metric": "bbox/AP", "sign": 1, "value": 3.0, "iteration": 1}
    assert torch.equal(weight, trainer.weights[1])  # of the first of two that are as good
    folder = Path(cfg.OUTPUT_DIR)
    assert (folder / "last_checkpoint").read_text() == "model_final.pth"
    names = torch.load(folder / "model_best.pth", weights_only=True).keys()
    assert names == {"model", "iteration", "best"}  # no optimizer: it is to be used


def test_a_resumed_training_knows_what_was_best(cfg):
    train_scripted(cfg, [1.0, 3.0, 2.0, 2.0], stop_before=4)
    resumed = train_scripted(cfg, [2.9, 2.8], resume=True)
    assert len(resumed.weights) == 2 and best(cfg)[0]["iteration"] == 1
    cfg.SOLVER.MAX_ITER = 8
    again = train_scripted(cfg, [2.0, 3.1], resume=True)
    record, weight = best(cfg)
    assert record["value"] == 3.1 and torch.equal(weight, again.weights[1])


def test_of_a_loss_the_smallest_is_best(cfg):
    cfg.TEST.BEST.METRIC = "validation/total_loss"
    values = [{"validation": {"total_loss": x}} for x in (3.0, 1.0, 2.0, 5.0, 4.0, 6.0)]
    train_scripted(cfg, values)
    assert best(cfg)[0]["value"] == 1.0
    cfg.TEST.BEST.MODE = "max"
    cfg.OUTPUT_DIR += "_max"
    train_scripted(cfg, values)
    assert best(cfg)[0]["value"] == 6.0


def test_another_metric_after_a_resume_begins_anew(cfg, caplog):
    train_scripted(cfg, [1.0, 3.0, 2.0, 2.0], stop_before=4)
    cfg.TEST.BEST.METRIC = "bbox/AP50"
    train_scripted(cfg, [{"bbox": {"AP50": 0.5}}, {"bbox": {"AP50": 0.4}}], resume=True)
    assert "model_best.pth is the best by bbox/AP, now TEST.BEST.METRIC is bbox/AP50" in caplog.text
    assert best(cfg)[0] | {"iteration": 4} == {
        "metric": "bbox/AP50", "sign": 1, "value": 0.5, "iteration": 4,
    }  # fmt: skip


def test_it_holds_the_averaged_weights(cfg):
    """Which are what was evaluated; the file evaluates to the same, and trains on."""
    cfg.SOLVER.WEIGHT_AVERAGE.DECAY = 0.8
    trainer = train_scripted(cfg, [1.0, 3.0, 2.0, 2.0, 1.0, 1.0])
    assert torch.equal(best(cfg)[1], trainer.weights[1])
    cfg.MODEL.WEIGHTS = str(Path(cfg.OUTPUT_DIR) / "model_best.pth")
    assert {"bbox", "validation"} <= evaluate(cfg, resume=False).keys()
    cfg.OUTPUT_DIR += "_finetuned"
    finetuned = RetinaTrainer(cfg)
    finetuned.resume_or_load(resume=False)
    assert torch.equal(finetuned.model.head.cls_score.weight, trainer.weights[1])


@pytest.mark.parametrize("metric, values", [("", 1.0), ("auto", {"segm": {"AP": 1.0}})])
def test_no_metric_no_file(cfg, metric, values):
    """Turned off, or an evaluator of one's own that has no COCO's AP."""
    cfg.TEST.BEST.METRIC = metric
    train_scripted(cfg, [values] * 6)
    assert not (Path(cfg.OUTPUT_DIR) / "model_best.pth").exists()


def test_an_unknown_metric_is_refused_before_training(cfg):
    cfg.TEST.BEST.METRIC = "bbox/AP05"
    with pytest.raises(UnknownNameError, match=r"TEST.BEST.METRIC: 'bbox/AP05'.*bbox/AP50.*AP-red"):
        RetinaTrainer(cfg)
    cfg.TEST.BEST.METRIC, cfg.TEST.BEST.MODE = "bbox/AP", "maximum"
    with pytest.raises(UnknownNameError, match=r"TEST.BEST.MODE: 'maximum'.*auto, max, min"):
        RetinaTrainer(cfg)


def test_a_metric_of_ones_own_evaluator_is_refused_at_the_first_evaluation(cfg):
    cfg.TEST.BEST.METRIC = "bbox/F1"
    with pytest.raises(UnknownNameError, match=r"TEST.BEST.METRIC: 'bbox/F1'.*Valid: bbox/AP\."):
        train_scripted(cfg, [1.0] * 6)
    assert train_scripted(cfg, [{"bbox": {"F1": 0.5}}] * 6).steps == 6
