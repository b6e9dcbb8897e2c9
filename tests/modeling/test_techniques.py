"""Techniques that exchange modules: what a model can do, it can do with them."""

import copy
import io

import pytest
import torch
from detectron2.engine import DefaultTrainer
from detectron2.modeling import build_model
from support.batches import make_batch
from support.model_pairs import training_step
from support.tiny_models import mobilenet_cfg, resnet18_cfg
from torch import nn
from torch.nn.utils import prune

from retina_plugin import add_retina_config, optimize_for_inference
from retina_plugin.modeling.layers.checkpointing import CheckpointedBlock, checkpoint_backbone
from retina_plugin.modeling.layers.folded_conv import FoldedConv2d, FoldedSequential
from retina_plugin.modeling.layers.winograd import WinogradConv2d
from retina_plugin.modeling.techniques import Techniques

KEYS = {
    "none": (),
    "fold": ("MODEL.FOLD_FROZEN_NORMS",),
    "winograd": ("MODEL.WINOGRAD",),
    "checkpointing": ("MODEL.BACKBONE.GRADIENT_CHECKPOINTING",),
    "channels_last": ("MODEL.CHANNELS_LAST",),
}
KEYS["all"] = tuple(key for keys in KEYS.values() for key in keys)


def resnet_cfg():
    cfg = add_retina_config(resnet18_cfg())
    cfg.MODEL.META_ARCHITECTURE = "FocalRetinaNet"
    cfg.MODEL.BACKBONE.FREEZE_AT = 2
    return cfg


def detector(name, make=resnet_cfg):
    cfg = make()
    cfg.merge_from_list([x for key in KEYS[name] for x in (key, True)])
    torch.manual_seed(0)
    return build_model(cfg)


def through_a_file(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def kinds(model):
    exchanged = FoldedConv2d, FoldedSequential, WinogradConv2d, CheckpointedBlock
    return {kind for kind in exchanged if any(type(m) is kind for m in model.modules())}


@pytest.mark.parametrize(
    ("name", "make"), [*((name, resnet_cfg) for name in KEYS), ("all", mobilenet_cfg)]
)
def test_copies_files_and_names(name, make):
    model, plain = detector(name, make), detector("none", make)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert [n for n, _ in model.named_modules()] == [n for n, _ in plain.named_modules()]
    assert [p.requires_grad for p in model.parameters()] == [
        p.requires_grad for p in plain.parameters()
    ]
    batch = make_batch()
    expected = training_step(copy.deepcopy(model), batch)
    for copied in copy.deepcopy, through_a_file:
        twin = copied(model)
        assert kinds(twin) == kinds(model)
        found = training_step(twin, batch)
        assert found.losses == expected.losses
        for key, gradient in expected.gradients.items():
            assert torch.equal(found.gradients[key], gradient), key


def test_the_builder_of_anybody_applies_them():
    """The stock trainer knows of no technique."""
    cfg = resnet_cfg()
    cfg.merge_from_list([x for key in KEYS["all"] for x in (key, True)])
    model = DefaultTrainer.build_model(cfg)
    assert kinds(model) == {FoldedConv2d, WinogradConv2d, CheckpointedBlock}
    weight = model.head.cls_score.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_twice_is_once():
    model = detector("all")
    before = [type(m) for m in model.modules()]
    every = Techniques(
        fold_frozen_norms=True, winograd=True, gradient_checkpointing=True, channels_last=True
    )
    assert every.apply(model) is model
    assert [type(m) for m in model.modules()] == before


@pytest.mark.parametrize("name", KEYS)
@torch.no_grad()
def test_traces_and_exports(name):
    model = detector(name).eval()
    x = torch.randn(1, 3, 128, 128)
    expected = model.backbone(x)
    graph = torch.jit.trace(model.backbone, x, strict=False, check_trace=False)(x)
    program = torch.export.export(model.backbone, (x,)).module()(x)
    for key, feature in expected.items():
        torch.testing.assert_close(graph[key], feature, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(program[key], feature, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_pruned_model_is_optimized():
    model = detector("fold").eval()
    prune.l1_unstructured(model.backbone.bottom_up.res3[0].conv1, "weight", 0.5)
    x = torch.randn(1, 3, 128, 128)
    for key, feature in optimize_for_inference(model).backbone(x).items():
        torch.testing.assert_close(feature, model.backbone(x)[key], rtol=1e-4, atol=1e-4)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.scale = nn.Linear(4, 4), 1.0

    def forward(self, x, context_fn=None, scale=1.0):
        return (self.linear(x) * self.scale * scale).relu()

    def train(self, mode=True):
        super().train(mode)
        self.linear.train(False)
        return self

    def freeze(self):
        return self.requires_grad_(False)


class Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.first = [self.blocks[0]]

    def forward(self, x):
        for block in self.blocks:
            x = block(x, context_fn=None, scale=2.0)
        return x


def test_a_checkpointed_block_is_the_block_to_everybody_else():
    model = Blocks()
    block, calls = model.blocks[0], []
    handle = block.register_forward_hook(lambda *_: calls.append(1))
    x = torch.randn(2, 4, requires_grad=True)
    expected = torch.autograd.grad(model(x).sum(), x)[0]
    checkpoint_backbone(model)
    wrapped = model.blocks[0]
    assert isinstance(wrapped, CheckpointedBlock) and model.first[0] is wrapped
    assert torch.equal(torch.autograd.grad(model(x).sum(), x)[0], expected)
    assert len(calls) == 2
    handle.remove()
    for twin in model, copy.deepcopy(model), through_a_file(model):
        wrapped = twin.blocks[0]
        wrapped.scale = 3.0  # reaches the block
        assert wrapped.block.scale == wrapped.scale == 3.0
        wrapped.linear = nn.Linear(4, 4, bias=False)
        assert wrapped.block.linear is wrapped.linear
        twin.eval()
        assert not wrapped.block.training
        twin.train()
        assert wrapped.block.training and not wrapped.linear.training
        wrapped.freeze()
        assert not any(p.requires_grad for p in wrapped.parameters())
        twin.double()
        assert twin(x.double()).dtype == torch.float64
    assert len(calls) == 2
