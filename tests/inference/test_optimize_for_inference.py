"""The optimised copy against the model that it was made of."""

import copy

import pytest
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
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
from retina_plugin.inference import optimize_for_inference as module
from retina_plugin.modeling.abilities import Reparameterizable
from retina_plugin.modeling.layers.folded_conv import fold_frozen_norms
from retina_plugin.modeling.layers.rep_conv import RepConv2d

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


class Branches(Reparameterizable):
    """Somebody's block that is one convolution at inference: it gives that."""

    def __init__(self, channels):
        super().__init__()
        self.dense = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return self.norm(self.dense(x)) + x

    def for_inference(self):
        assert not self.training
        conv = nn.utils.fusion.fuse_conv_bn_eval(self.dense, self.norm)
        with torch.no_grad():
            conv.weight += nn.init.dirac_(torch.empty_like(conv.weight))
        return conv


class SwitchedBackbone(Reparameterizable):
    """Somebody's network with RepVGG's habit: it changes itself, parts and all."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(Branches(4), Branches(4))
        self.asked = 0

    def forward(self, x):
        return self.blocks(x)

    def for_inference(self):
        self.asked += 1
        self.blocks = nn.Sequential(*(block.for_inference() for block in self.blocks))
        return self


class ListedBlocks(nn.Module):
    """One block is registered, and called from a plain list, and twice."""

    def __init__(self):
        super().__init__()
        self.block = Branches(4)
        self.calls = [self.block, self.block]

    def forward(self, x):
        for block in self.calls:
            x = block(x)
        return x


def learned(model):
    """Statistics that are not the initial ones."""
    for _ in range(3):
        model.train()(2 * torch.randn(4, 4, 8, 8) + 1)
    return model.eval()


@pytest.mark.parametrize(
    ("make", "convs"),
    [
        (lambda: Branches(4), 1),  # the model itself
        (lambda: nn.Sequential(Branches(4), nn.ReLU(), Branches(4)), 2),
        (SwitchedBackbone, 2),
        (lambda: nn.Sequential(SwitchedBackbone(), Branches(4)), 3),
        (ListedBlocks, 1),
    ],
)
def test_modules_that_have_another_form_for_inference(make, convs):
    model = learned(make())
    before = copy.deepcopy(model.state_dict())
    optimized = optimize_for_inference(model, channels_last=False)
    kinds = [type(m) for m in optimized.modules()]
    assert kinds.count(nn.Conv2d) == convs
    assert Branches not in kinds and nn.BatchNorm2d not in kinds
    x = torch.randn(2, 4, 9, 7)
    torch.testing.assert_close(optimized(x), model(x))
    assert getattr(model, "asked", 0) == 0
    for tensor in optimized.state_dict().values():
        tensor.zero_()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(p.requires_grad for p in model.parameters())
    model.train()(x).sum().backward()


def test_the_outermost_answers_for_its_parts(monkeypatch):
    asked = []
    give = Branches.for_inference
    monkeypatch.setattr(Branches, "for_inference", lambda self: asked.append(self) or give(self))
    assert optimize_for_inference(learned(SwitchedBackbone())).asked == 1
    assert len(asked) == 2  # by their network, not once more each


def test_what_was_folded_in_training_is_re_parameterised():
    block = RepConv2d(in_channels=4, out_channels=4, norm="FrozenBN")
    for norm in norms_of(block):
        norm.running_var.uniform_(0.1, 2)
        norm.running_mean.normal_()
    model = nn.Sequential(block).eval()
    assert fold_frozen_norms(model)[1] == 2
    x = torch.randn(1, 4, 6, 6)
    optimized = optimize_for_inference(model)
    assert type(optimized[0]) is Conv2d
    torch.testing.assert_close(optimized(x), model(x))


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
