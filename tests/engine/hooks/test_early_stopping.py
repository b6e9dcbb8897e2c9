"""A training ends in order when it no longer gets better."""

import json
from pathlib import Path

import pytest
import torch
from support.tiny_training import tiny_training_cfg, train_scripted

from retina_plugin.engine.hooks.early_stopping import evaluations_without_gain
from retina_plugin.engine.tracked_metric import TrackedMetric

NAN = float("nan")


@pytest.fixture
def cfg(tmp_path):
    """An evaluation and a checkpoint after every step; two without gain end it."""
    keys = ("TEST.EVAL_PERIOD", 1, "SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.MAX_ITER", 9)
    return tiny_training_cfg(tmp_path, *keys, "TEST.EARLY_STOPPING.PATIENCE", 2)


def evaluated(cfg):
    lines = (Path(cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return {x["iteration"]: x["bbox/AP"] for x in records if "bbox/AP" in x}


def test_it_ends_as_a_training_does(cfg, caplog):
    caplog.set_level("INFO", "retina_plugin")
    trainer = train_scripted(cfg, [1.0, 3.0, 2.0, 3.0])
    assert trainer.steps == 4 and trainer.results == {"bbox": {"AP": 3.0}}
    assert len(trainer.weights) == 4  # the last one is not evaluated a second time
    assert evaluated(cfg) == {0: 1.0, 1: 3.0, 2: 2.0, 3: 3.0}
    folder = Path(cfg.OUTPUT_DIR)
    assert (folder / "last_checkpoint").read_text() == "model_final.pth"
    final = torch.load(folder / "model_final.pth", weights_only=True)
    assert final["iteration"] == 3
    assert torch.equal(final["model"]["head.cls_score.weight"], trainer.weights[-1])
    assert (
        "Early stopping: bbox/AP has not become better in the last 2 evaluations; the best was 3: "
        "the training stops after 4 steps" in caplog.text
    )
    assert "Exception" not in caplog.text


def test_resumed_it_goes_on_counting(cfg):
    train_scripted(cfg, [1.0, 3.0, 2.0], stop_before=3)
    resumed = train_scripted(cfg, [2.5, 2.5], resume=True)
    assert resumed.steps == 4


def test_resumed_after_it_stopped_it_stays_so(cfg, caplog):
    """It is evaluated, as any finished training; a larger patience trains on."""
    train_scripted(cfg, [1.0, 3.0, 2.0, 3.0])
    caplog.set_level("INFO", "retina_plugin")
    again = train_scripted(cfg, [2.0], resume=True)
    assert again.steps == 4 and again.results == {"bbox": {"AP": 2.0}}
    assert "set TEST.EARLY_STOPPING.PATIENCE larger than that, or to 0" in caplog.text
    cfg.TEST.EARLY_STOPPING.PATIENCE = 3
    on = train_scripted(cfg, [2.5, 2.5], resume=True)
    assert on.steps == 5


def test_a_training_that_gets_better_comes_to_its_end(cfg):
    trainer = train_scripted(cfg, [float(x) for x in range(9)])
    assert trainer.steps == 9 and len(trainer.weights) == 9
    assert (Path(cfg.OUTPUT_DIR) / "model_final.pth").is_file()


def test_no_gain_at_the_last_evaluation_changes_nothing(cfg):
    assert train_scripted(cfg, [0.0, 1, 2, 3, 4, 5, 6, 5, 4]).steps == 9


@pytest.mark.parametrize(
    ("values", "mode", "delta", "waited"),
    [
        ([], "max", 0, 0),
        ([1, 2, 3], "max", 0, 0),
        ([1, 1, 1], "max", 0, 2),
        ([3, 2, 1], "max", 0, 2),
        ([3, 2, 1], "min", 0, 0),
        ([3, 2, 1, 1], "auto", 0, 3),
        ([NAN, NAN], "max", 0, 2),
        ([1, NAN, 2, NAN], "max", 0, 1),
        ([1, 1.4, 1.8, 2.2], "max", 0.5, 1),  # 1.8 counts: it is more than 0.5 over 1
        ([-5, -5], "max", 0.5, 1),
    ],
)
def test_counting(values, mode, delta, waited):
    metric = TrackedMetric("bbox/AP", mode)
    assert evaluations_without_gain(values, metric, delta) == waited


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("TEST.EVAL_PERIOD", 0, r"PATIENCE 2 counts evaluations.*TEST.EVAL_PERIOD"),
        ("DATASETS.TEST", (), r"PATIENCE 2 counts evaluations.*DATASETS.TEST"),
        ("TEST.EARLY_STOPPING.PATIENCE", -1, r"PATIENCE must be 1 or more evaluations, got -1"),
        ("TEST.EARLY_STOPPING.MIN_DELTA", -0.1, r"MIN_DELTA must be 0 or more, got -0.1"),
    ],
)
def test_what_cannot_be_is_refused_before_training(cfg, key, value, message):
    cfg.merge_from_list([key, value])
    with pytest.raises(ValueError, match=message):
        train_scripted(cfg, [])


def test_it_has_a_metric_of_its_own(cfg):
    cfg.TEST.BEST.METRIC = ""
    cfg.TEST.EARLY_STOPPING.METRIC = "validation/total_loss"
    values = [{"validation": {"total_loss": x}} for x in (3.0, 2.0, 2.5, 2.1)]
    assert train_scripted(cfg, values).steps == 4
