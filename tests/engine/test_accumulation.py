"""A step of micro-batches is the large batch's: losses, gradients, normalizer and weights."""

import copy

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.solver.build import maybe_add_gradient_clipping
from detectron2.utils.events import EventStorage
from support.batches import make_batch
from support.tiny_models import tiny_cfg, tiny_focal_cfg

from retina_plugin.engine.accumulation import micro_batch_size
from retina_plugin.engine.step import TrainingStep, build_step
from retina_plugin.modeling.abilities import ExtraLosses
from retina_plugin.modeling.weight_average import WeightAverage
from retina_plugin.workbench.benchmark.synchronisations import SynchronisationCounter

COUNTS = [(6, 0, 3, 9), (0, 4, 1, 0)]  # objects of the images of two steps
NORMALIZERS = ["EMANormalizer", "BatchNormalizer", "FixedNormalizer"]


def large_batches():
    """All of one size: micro-batches are padded alike."""
    torch.manual_seed(1)
    return [make_batch(counts, sizes=((96, 96),)) for counts in COUNTS]


def split(batches, parts):
    size = len(batches[0]) // parts
    return [batch[i : i + size] for batch in batches for i in range(0, len(batch), size)]


def detector(normalizer="EMANormalizer", **loss):
    torch.manual_seed(0)
    cfg = tiny_focal_cfg(NORM="GN")
    cfg.MODEL.RETINANET.NORMALIZER.NAME = normalizer
    for key, value in loss.items():
        cfg.MODEL.RETINANET.LOSS[key] = value
    return build_model(cfg)


def clipped(model, kind, largest):
    cfg = tiny_focal_cfg()
    clip = cfg.SOLVER.CLIP_GRADIENTS
    clip.ENABLED, clip.CLIP_TYPE, clip.CLIP_VALUE = True, kind, largest
    return maybe_add_gradient_clipping(cfg, torch.optim.SGD(model.parameters(), lr=0.01))


def run(model, batches, parts, *, optimizer=None, scale=None, **options):
    """Losses of every step; the gradients of the last one stay in the model."""
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    step = TrainingStep(
        model=model, loader=split(batches, parts), optimizer=optimizer, accumulate=parts, **options
    )
    if scale is not None:
        step.grad_scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    found = []
    with EventStorage() as storage:
        for step.iter in range(len(batches)):
            step.run_step()
            found.append({k: v[0] for k, v in storage.latest().items() if "loss" in k})
            storage.step()
    return found


def assert_same(model, losses, other, others_losses, tolerance):
    for a, b in zip(losses, others_losses, strict=True):
        assert a == pytest.approx(b, rel=tolerance)
    # where a gradient is next to nothing, rounding is of the large sums that it came from
    total = sum(b.grad.norm().square() for b in other.parameters()).sqrt()
    floor = torch.finfo(total.dtype).eps * total + 1e-12
    for (name, a), b in zip(model.named_parameters(), other.parameters(), strict=True):
        assert (a.grad - b.grad).norm() <= tolerance * b.grad.norm() + floor, name
        assert (a - b).norm() <= tolerance * b.norm() + floor, name
    for (name, a), b in zip(model.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_equals_the_large_batch(normalizer, parts):
    """In double; the divisors alone are float. Some micro-batches have no object at all."""
    whole = detector(normalizer).double()
    parted = copy.deepcopy(whole)
    batches = large_batches()
    expected = run(whole, batches, 1)
    found = run(parted, batches, parts)
    assert expected[0].keys() >= {"loss_cls", "loss_box_reg", "total_loss"}
    assert_same(parted, found, whole, expected, 1e-6)


def test_equals_the_large_batch_in_float():
    """But for the rounding of other sums."""
    whole = detector()
    parted = copy.deepcopy(whole)
    batches = large_batches()
    assert_same(parted, run(parted, batches, 2), whole, run(whole, batches, 1), 2e-5)


@pytest.mark.parametrize("scale", [None, 1024.0])
@pytest.mark.parametrize(("kind", "largest"), [("norm", 0.05), ("value", 0.001)])
def test_clipping_sees_the_gradient_of_the_step(kind, largest, scale):
    """Unscaled, where half precision needs a scale."""
    whole = detector().double()
    parted = copy.deepcopy(whole)
    batches = large_batches()[:1]
    free = copy.deepcopy(whole)
    run(free, batches, 1)
    size = {"norm": lambda g: g.norm(), "value": lambda g: g.abs().max()}[kind]
    assert any(size(p.grad) > 2 * largest for p in free.parameters())  # there is work to do
    expected = run(whole, batches, 1, optimizer=clipped(whole, kind, largest))
    found = run(parted, batches, 2, optimizer=clipped(parted, kind, largest), scale=scale)
    assert max(size(p.grad) for p in parted.parameters()) <= largest * (1 + 1e-5)
    assert_same(parted, found, whole, expected, 1e-5)


def test_extra_losses_are_divided_too():
    """Also one that only some micro-batches have."""

    class LearningHead(ExtraLosses):
        def __init__(self, head):
            super().__init__()
            self.inner = head

        def forward(self, features):
            return self.inner(features)

        def extra_losses(self, predictions, targets, positives):
            losses = {"loss_extra": predictions.logits[0].square().sum()}
            if len(targets.positives):
                losses["loss_positives"] = positives.deltas.square().sum()
            return losses

    whole = detector().double()
    parted = copy.deepcopy(whole)
    batches = large_batches()
    for model in (whole, parted):
        model.head = LearningHead(model.head)
    expected, found = run(whole, batches, 1), run(parted, batches, 4)
    assert {"loss_extra", "loss_positives"} < expected[0].keys()
    assert_same(parted, found, whole, expected, 1e-6)


def test_objects_weights_and_counts_of_quality():
    whole = detector("BatchNormalizer", BOXES_BY="quality", COUNT="quality").double()
    parted = copy.deepcopy(whole)
    batches = large_batches()
    for given in [given for batch in batches for given in batch]:
        instances = given["instances"]
        instances.gt_weight = torch.rand(len(instances))
    assert_same(parted, run(parted, batches, 2), whole, run(whole, batches, 1), 1e-6)


def test_the_deviation_of_weighted_boxes():
    """Weights have a mean of 1 in the micro-batch, not in the step; other losses are exact."""
    whole = detector("BatchNormalizer", BOXES_BY="centreness").double()
    parted = copy.deepcopy(whole)
    batches = large_batches()[:1]
    (expected,), (found,) = run(whole, batches, 1), run(parted, batches, 2)
    assert found["loss_cls"] == pytest.approx(expected["loss_cls"], rel=1e-6)
    assert found["loss_box_reg"] != pytest.approx(expected["loss_box_reg"], rel=1e-6)
    assert found["loss_box_reg"] == pytest.approx(expected["loss_box_reg"], rel=0.1)


def test_a_micro_batch_that_is_not_finite_stops_the_step():
    model = detector()
    batches = large_batches()[:1]
    batches[0][0]["image"] = torch.full((3, 96, 96), torch.nan)
    before = model.head.cls_score.bias.clone()
    with pytest.raises(FloatingPointError):
        run(model, batches, 2)
    assert torch.equal(model.head.cls_score.bias, before)


@pytest.mark.parametrize("parts", [1, 2])
def test_only_each_forward_pass_and_the_log_wait_for_the_device(parts):
    """Neither rescaling nor the average of the weights does."""
    model = detector()
    batches = large_batches()[:1]
    average = WeightAverage(model, decay=0.99)
    step = build_step(
        model,
        split(batches, parts),
        torch.optim.SGD(model.parameters(), lr=0.01),
        amp=False,
        accumulate=parts,
        average=average,
    )
    with EventStorage(), SynchronisationCounter(torch.device("cpu"), batches) as counter:
        step.run_step()
    assert counter.waits.total() == parts + 1, counter.waits
    assert average.updates == 1


def test_detectron2s_own_retinanet_cannot():
    model = build_model(tiny_cfg())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with pytest.raises(ValueError, match=r"ACCUMULATE.*RetinaNet.*FocalRetinaNet"):
        build_step(model, [], optimizer, amp=False, accumulate=2)
    build_step(model, [], optimizer, amp=False, accumulate=1)


# ---- sizes


def test_micro_batch_size():
    assert micro_batch_size(16, accumulate=4, workers=2) == 4
    assert micro_batch_size(16, accumulate=1, workers=1) == 16


@pytest.mark.parametrize(
    ("images", "accumulate", "message"),
    [
        (8, 3, r"SOLVER.IMS_PER_BATCH.*8 images.*2 workers in 3 micro-batches.*multiple of 6"),
        (8, 0, r"SOLVER.ACCUMULATE.*1 or more, got 0"),
        (8, 2.0, r"SOLVER.ACCUMULATE.*whole number.*2.0"),
    ],
)
def test_impossible_sizes(images, accumulate, message):
    with pytest.raises(ValueError, match=message):
        micro_batch_size(images, accumulate=accumulate, workers=2)
