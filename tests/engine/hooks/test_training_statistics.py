"""What is logged beside the losses is what happened, and costs the step no wait."""

import json
from pathlib import Path

import pytest
import torch
from detectron2.engine import HookBase
from detectron2.utils.events import EventStorage
from support.batches import make_batch
from support.tiny_models import tiny_focal_cfg
from support.tiny_training import tiny_training_cfg

from retina_plugin.engine.hooks.gradient_norm import GradientNorm
from retina_plugin.engine.hooks.positive_counts import PositiveCounts
from retina_plugin.engine.hooks.training_statistics import TrainingStatistics, rates_by_factor
from retina_plugin.engine.step import TrainingStep
from retina_plugin.engine.trainer import RetinaTrainer
from retina_plugin.workbench.benchmark.step import LOGGING
from retina_plugin.workbench.benchmark.synchronisations import SynchronisationCounter


class Observer(HookBase):
    """Norms of the gradients and targets of each step, computed another way."""

    def __init__(self, model):
        self.norms, self.targets, self.model = [], [], model
        assign = model.assign

        def kept(*args):
            self.targets.append(assign(*args))
            return self.targets[-1]

        model.assign = kept

    def after_step(self):
        gradients = [p.grad.flatten() for p in self.model.parameters()]
        self.norms.append(torch.cat(gradients).norm().item())


@pytest.fixture
def trained(tmp_path):
    """Three steps, the backbone at half the rate, the last metrics, and the observer."""
    cfg = tiny_training_cfg(tmp_path, "SOLVER.MAX_ITER", 3, "SOLVER.BACKBONE_LR_FACTOR", 0.5)
    cfg.DATASETS.TEST = ()
    torch.manual_seed(0)
    trainer = RetinaTrainer(cfg)
    observer = Observer(trainer.model)
    trainer.register_hooks([observer])
    trainer.train()
    (line,) = Path(cfg.OUTPUT_DIR, "metrics.json").read_text().splitlines()
    return json.loads(line), observer, trainer


def test_every_number(trained):
    found, observer, trainer = trained
    images = 2 * len(observer.targets)
    classes = torch.cat([x.classes for x in observer.targets]).bincount(minlength=3) / images
    for name, count in zip(("red", "green", "blue"), classes.tolist(), strict=True):
        assert found[f"positives/class/{name}"] == pytest.approx(count)
    levels = [sum(level) for level in zip(*_level_counts(observer.targets), strict=True)]
    for name, count in zip(("p3", "p4", "p5", "p6", "p7"), levels, strict=True):
        assert found[f"positives/level/{name}"] == pytest.approx(count / images)
    assert sum(levels) > 0
    assert found["gradient_norm/mean"] == pytest.approx(sum(observer.norms) / 3, rel=1e-4)
    assert found["gradient_norm/max"] == pytest.approx(max(observer.norms), rel=1e-4)
    assert found["normalizer"] == pytest.approx(trainer.model.normalizer.average.item())
    assert found["images"] == 6 and found["peak_memory_mib"] > 50
    assert found["lr/times_0.5"] == pytest.approx(found["lr/times_1"] / 2) and "lr" in found


def _level_counts(targets):
    for x in targets:
        positive = (x.labels >= 0) & (x.labels < x.num_classes)
        yield [int(part.sum()) for part in positive.split(list(x.level_sizes), dim=1)]


def test_the_line_on_the_screen_stays_short(tmp_path, caplog):
    cfg = tiny_training_cfg(tmp_path, "SOLVER.MAX_ITER", 3, "TEST.EVAL_PERIOD", 1)
    with caplog.at_level("INFO", "detectron2"):
        RetinaTrainer(cfg).train()
    lines = [x.getMessage() for x in caplog.records if " iter: " in x.getMessage()]
    assert len(lines) == 3  # after each evaluation and the last step, none twice
    for line in lines:
        assert "total_loss" in line and "validation" not in line and "positives" not in line
    metrics = Path(cfg.OUTPUT_DIR, "metrics.json").read_text().splitlines()
    assert all("validation/loss_cls" in json.loads(line) for line in metrics[:2])


def test_the_step_waits_for_the_device_no_more_than_before():
    model = RetinaTrainer.build_model(tiny_focal_cfg(NORM="GN"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    batch = make_batch()
    step = TrainingStep(model=model, loader=[batch] * 4, optimizer=optimizer)
    norm = GradientNorm()
    options = {"images_per_step": 2, "period": 20, "gradient_norm": norm}
    statistics = TrainingStatistics(model, optimizer, **options)
    step.register_hooks([norm, statistics])
    step.max_iter = 100

    def run():
        step.run_step()
        step.after_step()

    with EventStorage() as step.storage:
        run()
        with SynchronisationCounter(torch.device("cpu"), batch) as counter:
            run()
    assert sum(n for (_, at), n in counter.waits.items() if not at.startswith(LOGGING)) == 1
    assert counter.uploads.total() == 0
    assert len(statistics._positives.read()) == 5 + 7


def test_evaluations_are_not_counted():
    model = RetinaTrainer.build_model(tiny_focal_cfg(NORM="GN"))
    counts = PositiveCounts(model)
    batch = make_batch()
    predictions = model.eval().predict(model.preprocess_image(batch))
    model.losses(predictions, [x["instances"] for x in batch])
    assert counts.read() == {}
    model.train()(batch)
    assert sum(counts.read().values()) > 0
    assert counts.read() == {}


def test_many_classes_have_a_share(monkeypatch):
    monkeypatch.setattr("retina_plugin.engine.hooks.positive_counts.MOST_CLASSES", 6)
    model = RetinaTrainer.build_model(tiny_focal_cfg(NORM="GN"))
    counts = PositiveCounts(model)
    model(make_batch((2, 0)))
    found = counts.read()
    assert 0 < found["positives/share_of_classes"] <= 2 / 7
    assert not any(name.startswith("positives/class/") for name in found)


def test_the_scale_of_half_precision_is_divided_out():
    """And a step that it spoilt is not counted."""
    model = torch.nn.Linear(3, 1)
    step = TrainingStep(model=model, loader=[], optimizer=torch.optim.SGD(model.parameters(), 0.1))
    step.grad_scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    norm = GradientNorm()
    norm.trainer = step
    for value in (3.0, float("inf"), 4.0):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        model.bias.grad.fill_(value * 1024)
        norm.after_backward()
    assert norm.read() == {"gradient_norm/mean": 3.5, "gradient_norm/max": 4.0}
    assert norm.read() == {}


def test_rates_are_named_where_they_differ():
    a, b, c = (torch.zeros(1, requires_grad=True) for _ in range(3))
    assert rates_by_factor(torch.optim.SGD([a, b], lr=0.1)) == {}
    groups = [{"params": [a], "lr": 0.2}, {"params": [b], "lr": 0.1}, {"params": [c], "lr": 0.2}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    optimizer.step()
    scheduler.step()
    found = rates_by_factor(optimizer)
    assert found == pytest.approx({"lr/times_1": 0.02, "lr/times_0.5": 0.01})
