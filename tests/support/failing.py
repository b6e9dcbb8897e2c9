"""Training steps that fail, each for a cause that is planted."""

import copy

import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from support.batches import make_batch
from support.tiny_models import tiny_focal_cfg
from torch import nn

from retina_plugin.engine.non_finite.guard import NonFiniteError, Origin, build_guard
from retina_plugin.engine.step import TrainingStep

CLASSES = ["ant", "bee", "cat", "dog", "elk", "fox", "gnu"]


def tiny_detector(assigner="MaxIoUAssigner", **retinanet):
    torch.manual_seed(0)
    cfg = tiny_focal_cfg(**{"NORM": "GN", **retinanet})
    cfg.MODEL.RETINANET.ASSIGNER.NAME = assigner
    return build_model(cfg)


def float_batch(counts=(6, 3)):
    """Images of floats, so that a pixel may be NaN."""
    batch = make_batch(counts, sizes=((96, 96),))
    for index, given in enumerate(batch):
        given["image"] = given["image"].float()
        given["image_id"] = 100 + index
    return batch


def with_bad_pixel(batch, image=1):
    batch = copy.deepcopy(batch)
    batch[image]["image"][0, 5, 7] = torch.nan
    return batch


def step_of(model, batches, folder=None, config="", lr=1e-3, parts=1, average=None, **settings):
    """A training step with the guard of ``SOLVER.NON_FINITE``."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    guard = build_guard(model, optimizer, settings, Origin(folder, config, CLASSES))
    return TrainingStep(
        model=model,
        loader=batches,
        optimizer=optimizer,
        guard=guard,
        accumulate=parts,
        average=average,
    )


def run(step, count):
    """So many steps; returns what was logged last."""
    with EventStorage() as storage:
        for step.iter in range(count):
            step.run_step()
            storage.step()
    return {name: value for name, (value, _) in storage.latest().items()}


def finding_of(step, count=1):
    """Of the step that stops the training, as one of ``count``."""
    try:
        run(step, count)
    except NonFiniteError as error:
        return error.finding
    raise AssertionError("every step was finite")


class NaNForClass(nn.Module):
    """A classification loss that gives NaN where there is an object of one class."""

    def __init__(self, loss, label):
        super().__init__()
        self.loss, self.label = loss, label

    def forward(self, logits, targets, positives):
        total = self.loss(logits, targets, positives)
        return total + torch.where((targets.classes == self.label).any(), torch.nan, 0.0)


class FlatRoot(nn.Module):
    """A box loss of finite numbers whose derivative is none."""

    def __init__(self, loss):
        super().__init__()
        self.loss = loss

    def forward(self, positives):
        return self.loss(positives) + (positives.deltas.sum(dim=1) * 0).sqrt()


def write_step(folder):
    """The finding of a step of two micro-batches, with its replay file and config."""
    config = tiny_focal_cfg(NORM="GN").dump()
    batches = [float_batch((4, 2)), with_bad_pixel(float_batch())]
    return finding_of(
        step_of(tiny_detector(), batches, folder, config, parts=2, CHECK_GRADIENTS=True)
    )
