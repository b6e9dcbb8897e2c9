"""The optimised copy against the model that it was made of."""

import copy

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import FPN, build_model
from support.batches import make_batch
from support.model_pairs import BOX_TOLERANCE, SCORE_TOLERANCE, build_pair
from support.tiny_models import (
    TinyBottomUp,
    mobilenet_cfg,
    resnet18_cfg,
    tiny_cfg,
    tiny_focal_cfg,
)
from torch import nn

from retina_plugin import optimize_for_inference
from retina_plugin.network import optimize_for_inference as module

NORMS = (FrozenBatchNorm2d, nn.BatchNorm2d)


def norms_of(model):
    return [m for m in model.modules() if isinstance(m, NORMS)]


@torch.no_grad()
def assert_same_detections(model, optimized, batch):
    for expected, found in zip(model(batch), optimized(batch), strict=True):
        expected, found = expected["instances"], found["instances"]
        assert len(expected) >= 10
        # in the same order, but where scores are as good as equal
        torch.testing.assert_close(found.scores, expected.scores, atol=SCORE_TOLERANCE, rtol=0)
        same_score = (found.scores[:, None] - expected.scores).abs() <= SCORE_TOLERANCE
        same_class = found.pred_classes[:, None] == expected.pred_classes
        distance = found.pred_boxes.tensor[:, None] - expected.pred_boxes.tensor
        same_box = distance.abs().amax(dim=2) <= BOX_TOLERANCE
        same = same_score & same_class & same_box
        assert same.any(dim=0).all() and same.any(dim=1).all()


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
def test_same_detections(norm, channels_last):
    """Of ours and of Detectron2's."""
    batch = make_batch()
    pair = build_pair(resnet18_cfg(norm), batch).train(False)
    for model in (pair.stock, pair.ours):
        optimized = optimize_for_inference(model, channels_last=channels_last)
        assert not norms_of(optimized)
        assert len(norms_of(model)) == 20
        assert_same_detections(model, optimized, batch)


@pytest.mark.parametrize("norm", ["GN", "BN"])
def test_norms_that_stay(norm):
    """What depends on its input, or on the level that it comes from."""
    batch = make_batch()
    pair = build_pair(tiny_cfg(NORM=norm), batch).train(False)
    optimized = optimize_for_inference(pair.ours)
    kind = nn.GroupNorm if norm == "GN" else nn.BatchNorm2d
    count = sum(isinstance(m, kind) for m in pair.ours.head.modules())
    assert count > 0
    assert sum(isinstance(m, kind) for m in optimized.head.modules()) == count
    assert_same_detections(pair.ours, optimized, batch)


def test_a_mobilenet():
    """Its norms are neighbours of its convolutions; some convolutions have groups."""
    batch = make_batch()
    model = build_model(mobilenet_cfg())
    with torch.no_grad():  # statistics that change something
        for norm in norms_of(model):
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(std=0.1)
    model.eval()
    optimized = optimize_for_inference(model)
    assert len(norms_of(model)) == 51
    assert not norms_of(optimized)
    images = model.preprocess_image(batch)
    with torch.no_grad():
        expected, found = model.predict(images), optimized.predict(images)
    for want, got in zip(
        expected.logits + expected.deltas, found.logits + found.deltas, strict=True
    ):
        torch.testing.assert_close(got, want, atol=1e-4 * want.std().item(), rtol=1e-4)


def test_a_convolution_that_is_shared():
    """By two norms, as of two levels: none can become part of it."""
    shared = nn.Conv2d(3, 3, 1)
    branches = nn.ModuleList(nn.Sequential(shared, nn.BatchNorm2d(3)) for _ in range(2)).eval()
    for scale, branch in enumerate(branches, start=2):
        nn.init.constant_(branch[1].weight, scale)
    x = torch.randn(1, 3, 4, 4)
    optimized = optimize_for_inference(branches, channels_last=False)
    for branch, copied in zip(branches, optimized, strict=True):
        torch.testing.assert_close(copied(x), branch(x))


def test_a_norm_without_statistics_stays():
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False))
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(optimize_for_inference(network)(x), network.eval()(x))


def test_convolutions_that_are_also_kept_in_a_list():
    """As Detectron2's FPN does, which calls those in its lists."""
    fpn = FPN(bottom_up=TinyBottomUp(), in_features=["res3"], out_channels=8, norm="BN")
    optimized = optimize_for_inference(fpn)
    assert optimized.lateral_convs[0].norm is None and optimized.output_convs[0].norm is None
    assert not norms_of(optimized)


@pytest.mark.parametrize("checkpointed", [True, False])
def test_what_training_folds_and_checkpoints(checkpointed):
    cfg = mobilenet_cfg()
    cfg.MODEL.FOLD_FROZEN_NORMS = True
    cfg.MODEL.BACKBONE.GRADIENT_CHECKPOINTING = checkpointed
    assert not norms_of(optimize_for_inference(build_model(cfg)))


def test_the_original_stays_as_it_is():
    model = build_model(tiny_focal_cfg()).train()
    before = copy.deepcopy(model.state_dict())
    hooks = len(model.backbone._forward_pre_hooks)
    optimized = optimize_for_inference(model)
    assert model.training and all(p.requires_grad for p in model.parameters())
    assert len(model.backbone._forward_pre_hooks) == hooks
    assert not optimized.training
    assert not any(p.requires_grad for p in optimized.parameters())
    for tensor in optimized.state_dict().values():
        tensor.zero_()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_activations_are_channels_last():
    """All the way to the head's maps: else every level would be transposed and back."""
    model = optimize_for_inference(build_model(tiny_focal_cfg()))
    with torch.no_grad():
        predictions = model.predict(model.preprocess_image(make_batch()))
    for map_ in (*predictions.logits[:3], *predictions.deltas[:3]):
        assert map_.is_contiguous(memory_format=torch.channels_last)


def test_compiling_without_a_compiler(monkeypatch):
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match=r"C\+\+ compiler.*TEST.COMPILE False"):
        optimize_for_inference(build_model(tiny_focal_cfg()), compile=True)
