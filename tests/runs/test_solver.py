"""Our SGD is Detectron2's; AdamW, slower layers, decay of norms and clipping as their keys say."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import FrozenBatchNorm2d
from detectron2.layers.batch_norm import CycleBatchNormList, LayerNorm
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer as stock_build_optimizer
from support.tiny_models import tiny_cfg
from torch import nn

from retina_plugin.config.defaults import add_retina_config
from retina_plugin.registry import UnknownNameError
from retina_plugin.runs.solver import build_optimizer


@pytest.fixture
def model():
    return build_model(tiny_cfg(NORM="GN"))


def config(**solver):
    cfg = add_retina_config(get_cfg())
    for key, value in solver.items():
        assert key in cfg.SOLVER or key == "LAYER_DECAY"
        cfg.SOLVER[key] = value
    return cfg


def settings(optimizer, model):
    """Per parameter name, everything its group says."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[parameter]: {key: value for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize(
    "solver",
    [
        {},
        {"MOMENTUM": 0.5, "NESTEROV": True, "WEIGHT_DECAY": 0.3, "WEIGHT_DECAY_NORM": 0.1},
        {"BIAS_LR_FACTOR": 2.0, "WEIGHT_DECAY_BIAS": 0.05},
    ],
)
def test_sgd_is_detectron2s(model, solver):
    cfg = config(**solver)
    ours, stock = build_optimizer(cfg, model), stock_build_optimizer(cfg, model)
    assert type(ours) is type(stock)
    assert len(ours.param_groups) == len(stock.param_groups)
    for a, b in zip(ours.param_groups, stock.param_groups, strict=True):
        assert {k: v for k, v in a.items() if k != "params"} == {
            k: v for k, v in b.items() if k != "params"
        }
        assert [*map(id, a["params"])] == [*map(id, b["params"])]


def test_a_config_without_our_keys_gives_detectron2s(model):
    cfg = get_cfg()
    ours, stock = build_optimizer(cfg, model), stock_build_optimizer(cfg, model)
    assert settings(ours, model) == settings(stock, model)


def test_frozen_parameters_are_left_out(model):
    for parameter in model.backbone.bottom_up.parameters():
        parameter.requires_grad_(False)
    found = settings(build_optimizer(config(), model), model)
    assert found.keys() == {n for n, p in model.named_parameters() if p.requires_grad}


def test_adamw_takes_rate_and_decay_but_no_momentum(model):
    cfg = config(OPTIMIZER="AdamW", BASE_LR=0.003, WEIGHT_DECAY=0.2, WEIGHT_DECAY_NORM=0.01)
    optimizer = build_optimizer(cfg, model)
    assert type(optimizer) is torch.optim.AdamW
    norms = {
        f"{module}.{name}"
        for module, m in model.named_modules()
        if isinstance(m, nn.GroupNorm)
        for name, _ in m.named_parameters()
    }
    assert norms
    for name, group in settings(optimizer, model).items():
        assert group["lr"] == 0.003
        assert group["weight_decay"] == (0.01 if name in norms else 0.2)
        assert "momentum" not in group


NORMS = {"GN": nn.GroupNorm, "LN": LayerNorm, "BN": CycleBatchNormList, "nnLN": nn.LayerNorm}


@pytest.mark.parametrize("bias_decay", [None, 0.0])
@pytest.mark.parametrize("norm", NORMS)
def test_adamw_decays_weights_but_neither_norms_nor_biases(norm, bias_decay):
    """Each kind of norm: ``BN`` in the head is one for each level with common weights."""
    model = build_model(tiny_cfg(NORM="BN" if norm == "BN" else "GN"))
    if norm in ("LN", "nnLN"):
        model.head.cls_subnet[1] = NORMS[norm](64)
    cfg = config(OPTIMIZER="AdamW", WEIGHT_DECAY=0.2, WEIGHT_DECAY_NORM=0.0)
    cfg.SOLVER.WEIGHT_DECAY_BIAS = bias_decay
    found = settings(build_optimizer(cfg, model), model)
    norms = {
        f"{module}.{name}"
        for module, m in model.named_modules()
        if isinstance(m, NORMS[norm])
        for name, _ in m.named_parameters(recurse=False)
    }
    assert norms
    for name, group in found.items():
        if name in norms:
            assert group["weight_decay"] == 0.0, name
        elif "subnet" not in name:  # where other norms may be
            of_bias = name.endswith("bias") and bias_decay is not None
            assert group["weight_decay"] == (bias_decay if of_bias else 0.2), name
    assert found.keys() == {n for n, _ in model.named_parameters()}


def test_a_bias_of_a_norm_has_the_decay_of_biases():
    """As Detectron2 has it for the norms that it knows."""
    model = nn.ModuleDict({"known": nn.GroupNorm(2, 4), "own": LayerNorm(4)})
    cfg = config(OPTIMIZER="AdamW", WEIGHT_DECAY_NORM=0.1)
    cfg.SOLVER.WEIGHT_DECAY_BIAS = 0.3
    found = settings(build_optimizer(cfg, model), model)
    for norm in model:
        assert found[f"{norm}.weight"]["weight_decay"] == 0.1
        assert found[f"{norm}.bias"]["weight_decay"] == 0.3


def test_frozen_norms_have_nothing_to_decay():
    model = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), FrozenBatchNorm2d(2))
    found = settings(build_optimizer(config(OPTIMIZER="AdamW"), model), model)
    assert found.keys() == {"0.weight"}


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_layer_decay_multiplies_the_other_factors(model, name):
    factors = {"LAYER_DECAY": 0.5, "BACKBONE_LR_FACTOR": 0.1, "BIAS_LR_FACTOR": 2.0}
    cfg = config(OPTIMIZER=name, BASE_LR=1.0, **factors)
    layers = {"res3": 0.125, "res4": 0.25, "res5": 0.5}
    for parameter, group in settings(build_optimizer(cfg, model), model).items():
        expected = 2.0 if parameter.endswith("bias") else 1.0
        if parameter.startswith("backbone.bottom_up."):
            expected *= 0.1 * layers[parameter.split(".")[2]]
        assert group["lr"] == pytest.approx(expected), parameter


@pytest.mark.parametrize("bias_factor", [1.0, 2.0])
@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_backbone_factor_is_of_the_bottom_up_alone(model, name, bias_factor):
    cfg = config(OPTIMIZER=name, BASE_LR=0.01, BACKBONE_LR_FACTOR=0.25, BIAS_LR_FACTOR=bias_factor)
    found = settings(build_optimizer(cfg, model), model)
    assert any(parameter.startswith("backbone.fpn") for parameter in found)
    for parameter, group in found.items():
        expected = 0.25 if parameter.startswith("backbone.bottom_up.") else 1.0
        expected *= bias_factor if parameter.endswith(".bias") else 1.0
        assert group["lr"] == pytest.approx(0.01 * expected), parameter


def test_backbone_without_fpn_is_the_pretrained_part():
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    found = settings(build_optimizer(config(BACKBONE_LR_FACTOR=0.5, BASE_LR=1.0), model), model)
    assert {name: group["lr"] for name, group in found.items()} == {
        "backbone.weight": 0.5,
        "backbone.bias": 0.5,
        "head.weight": 1.0,
        "head.bias": 1.0,
    }


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_clipping_applies(name):
    """By value: no gradient that the optimizer sees is larger."""
    layer = nn.Linear(3, 3)
    cfg = config(OPTIMIZER=name)
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.01
    optimizer = build_optimizer(cfg, layer)
    assert isinstance(optimizer, getattr(torch.optim, name))
    (layer(torch.ones(1, 3)) * 100).sum().backward()
    optimizer.step()
    assert layer.weight.grad.abs().max() == pytest.approx(0.01)


def test_steps_equal_detectron2s(model):
    """The groups are equal; so is what a step does with them."""
    cfg = config(BASE_LR=0.1, WEIGHT_DECAY=0.1)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    results = []
    for build in (build_optimizer, stock_build_optimizer):
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(before[name])
                parameter.grad = torch.ones_like(parameter)
        optimizer = build(cfg, model)
        optimizer.step()
        optimizer.step()
        results.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert not torch.equal(results[0][0], next(iter(before.values())))


def test_unknown_optimizer_lists_the_valid_ones(model):
    with pytest.raises(UnknownNameError, match=r"SOLVER.OPTIMIZER.*'adamw'.*AdamW.*SGD"):
        build_optimizer(config(OPTIMIZER="adamw"), model)


def test_unknown_kind_of_clipping_lists_the_valid_ones(model):
    cfg = config()
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "full_model"
    build_optimizer(cfg, model)  # it is off
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    with pytest.raises(UnknownNameError, match=r"CLIP_GRADIENTS.CLIP_TYPE: 'full_model'.*norm, v"):
        build_optimizer(cfg, model)
