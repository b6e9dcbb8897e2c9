"""Losses as functions of tensors: equal to ``forward``'s, and nothing stays behind."""

import copy

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.modeling.meta_arch import RetinaNet
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage
from support.batches import make_batch
from support.tiny_models import mobilenet_cfg, tiny_cfg, tiny_focal_cfg
from support.workers import on_workers
from torch import nn

from retina_plugin import (
    detect_from_tensors,
    loss_from_predictions,
    loss_from_tensors,
    predict_from_tensors,
)
from retina_plugin.modeling.batch_inputs import ground_truth_of
from retina_plugin.modeling.normalizers.fixed_normalizer import FixedNormalizer


def tensors(batch):
    return [x["image"].float() for x in batch], [x["instances"] for x in batch]


def with_batch_norm():
    """A detector with every kind of state: running statistics, a moving average, a loss's sums."""
    cfg = tiny_focal_cfg()
    cfg.MODEL.RETINANET.CLS_LOSS.NAME = "EqualizedFocalLoss"
    model = build_model(cfg)
    model.backbone.bottom_up.res4 = nn.Sequential(model.backbone.bottom_up.res4, nn.BatchNorm2d(16))
    return model


@pytest.mark.parametrize("training", [True, False])
def test_equals_forward_in_training_mode(training):
    batch = make_batch()
    model = with_batch_norm().train(training)
    losses = loss_from_tensors(model, *tensors(batch))
    if not training:  # forward detects then: the losses of its parts
        images = model.preprocess_image(batch)
        instances = [x["instances"] for x in batch]
        expected = model.losses(model.predict(images), instances)
    else:
        expected = copy.deepcopy(model)(batch)
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name])


def test_nothing_stays_behind():
    model = with_batch_norm().train()
    model.vis_period = 1
    before = copy.deepcopy(model.state_dict())
    batch = make_batch()
    with EventStorage() as storage:
        losses = [loss_from_tensors(model, *tensors(batch)) for _ in range(2)]
        detect_from_tensors(model, tensors(batch)[0])
    assert not storage.histories() and not storage._vis_data
    assert model.training
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0])
    with EventStorage():  # and forward does leave something, or this test could not fail
        model(batch)
    assert any(not torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_buffers_come_back_after_an_error():
    model = with_batch_norm()
    buffers = dict(model.named_buffers())
    with pytest.raises(ValueError, match="gt_classes from 9 to 9"):
        loss_from_tensors(
            model,
            torch.zeros(1, 3, 64, 64),
            [{"boxes": torch.tensor([[0.0, 0, 9, 9]]), "labels": torch.tensor([9])}],
        )
    model.head.forward = lambda features: 1 / 0
    with pytest.raises(ZeroDivisionError):
        predict_from_tensors(model, torch.zeros(1, 3, 64, 64))
    assert all(buffer is buffers[name] for name, buffer in model.named_buffers())


@pytest.mark.parametrize("cfg", [tiny_focal_cfg, mobilenet_cfg])
def test_gradient_of_the_pixels_is_right(cfg):
    """Through frozen stages too; compared with central differences along a direction."""
    cfg = cfg()
    cfg.MODEL.BACKBONE.FREEZE_AT = 2
    model = build_model(cfg).double().eval()
    images = (torch.rand(1, 3, 64, 64, dtype=torch.float64) * 255).requires_grad_()
    boxes = torch.tensor([[8.0, 8, 40, 44]], dtype=torch.float64)
    target = [{"boxes": boxes, "labels": torch.tensor([2])}]

    def loss(x):
        return sum(loss_from_tensors(model, x, target).values())

    (gradient,) = torch.autograd.grad(loss(images), images)
    direction = torch.randn_like(images)
    step = 1e-5
    with torch.no_grad():
        moved = loss(images + step * direction) - loss(images - step * direction)
    assert gradient.abs().sum() > 0
    slope = (gradient * direction).sum()
    torch.testing.assert_close(slope, moved / (2 * step), rtol=1e-3, atol=1e-8)


def test_torchvisions_targets_and_fields_of_objects():
    cfg = tiny_focal_cfg()
    model = build_model(cfg)
    batch = make_batch()
    images, instances = tensors(batch)
    as_dicts = [{"boxes": x.gt_boxes.tensor, "labels": x.gt_classes} for x in instances]
    plain = loss_from_tensors(model, images, instances)
    same = loss_from_tensors(model, images, as_dicts)
    assert all(torch.equal(plain[name], same[name]) for name in plain)
    weighted = [{**x, "weight": torch.full((len(x["labels"]),), 3.0)} for x in as_dicts]
    heavy = loss_from_tensors(model, images, weighted)
    torch.testing.assert_close(heavy["loss_box_reg"], 3 * plain["loss_box_reg"])


@pytest.mark.parametrize("kind", ["dict", "Instances"])
def test_images_end_and_regions_to_ignore_count_as_in_training(kind):
    """What the assigner asks of an image beside its boxes: its size before padding, its crowds."""
    cfg = tiny_focal_cfg()
    cfg.MODEL.RETINANET.ASSIGNER.MaxIoUAssigner.ALLOWED_BORDER = 16.0
    model = build_model(cfg)
    batch = make_batch()
    plain = loss_from_tensors(model, *tensors(batch))
    for x in batch:
        x["ignored_boxes"] = Boxes(torch.tensor([[0.0, 0, 96, 96]]))
    images, _ = tensors(batch)
    if kind == "dict":
        targets = [
            {
                "boxes": x["instances"].gt_boxes.tensor,
                "labels": x["instances"].gt_classes,
                "ignored_boxes": x["ignored_boxes"].tensor,
            }
            for x in batch
        ]
    else:
        targets = [ground_truth_of(x, 7, model.device) for x in batch]
    losses = loss_from_tensors(model, images, targets)
    expected = copy.deepcopy(model)(batch)
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name])
    assert losses["loss_cls"] != plain["loss_cls"]


def test_predictions_are_used_twice():
    """Features and logits for a loss of one's own, and the detector's losses, of one pass."""
    model = build_model(tiny_focal_cfg())
    images, instances = tensors(make_batch())
    predictions = predict_from_tensors(model, images)
    assert [x.shape[1] for x in predictions.features] == [64] * 5
    losses = loss_from_predictions(model, predictions, instances, FixedNormalizer(value=2.0))
    (sum(losses.values()) + predictions.features[0].square().mean()).backward()
    assert all(p.grad is not None for p in model.parameters())
    other = loss_from_predictions(model, predictions, instances, FixedNormalizer(value=1.0))
    torch.testing.assert_close(other["loss_cls"], 2 * losses["loss_cls"])


def test_detections_equal_forwards():
    model = build_model(tiny_focal_cfg()).eval()
    model.post_processor.score_thresh = 0.0
    batch = make_batch()
    with torch.no_grad():
        expected = model(batch)
    for found, wanted in zip(detect_from_tensors(model, tensors(batch)[0]), expected, strict=True):
        wanted = wanted["instances"]
        assert len(found) == len(wanted) > 0
        torch.testing.assert_close(found.pred_boxes.tensor, wanted.pred_boxes.tensor)
        torch.testing.assert_close(found.scores, wanted.scores)


def test_mistakes():
    with pytest.raises(TypeError, match="expected a FocalRetinaNet, got RetinaNet"):
        loss_from_tensors(RetinaNet(**RetinaNet.from_config(tiny_cfg())), [], [])
    with pytest.raises(ValueError, match="2 images, but 1 targets"):
        images, instances = tensors(make_batch())
        loss_from_tensors(build_model(tiny_focal_cfg()), images, instances[:1])


def _on_a_worker(_):
    torch.manual_seed(0)
    model = build_model(tiny_focal_cfg())
    images, instances = tensors(make_batch())
    parallel = nn.parallel.DistributedDataParallel(model)
    alone, wrapped = (loss_from_tensors(x, images, instances) for x in (model, parallel))
    assert all(torch.equal(alone[name], wrapped[name]) for name in alone)


def test_of_a_parallel_model_the_one_within(tmp_path):
    on_workers(2, tmp_path, _on_a_worker)
