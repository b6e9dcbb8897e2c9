"""torchvision's networks, read from themselves, against torchvision's own feature extraction."""

import copy

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import build_backbone, build_model
from support.backbone_configs import assert_is_pyramid, backbone_cfg, trainable
from torch import nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from retina_plugin.modeling.backbones import torchvision_fpn
from retina_plugin.modeling.backbones.segments import group_by_stage, read_segments
from retina_plugin.modeling.backbones.torchvision_fpn import Torchvision
from retina_plugin.registry import UnknownNameError

STAGES = ("stem", "res2", "res3", "res4", "res5")
# model -> torchvision's names of the last maps of strides 4 to 32
NODES = {
    "resnet18": ("layer1", "layer2", "layer3", "layer4"),
    "regnet_y_400mf": [f"trunk_output.block{i}" for i in (1, 2, 3, 4)],
    "mobilenet_v2": [f"features.{i}" for i in (3, 6, 13, 18)],
    "mobilenet_v3_small": [f"features.{i}" for i in (1, 3, 8, 12)],
    "efficientnet_b0": [f"features.{i}" for i in (2, 3, 5, 8)],
    "convnext_tiny": [f"features.{i}" for i in (1, 3, 5, 7)],
    "swin_t": ("features.1", "features.3", "features.5", "permute"),
}


def torchvision_cfg(model, *overrides):
    return backbone_cfg("torchvision", "MODEL.BACKBONE.Torchvision.MODEL", model, *overrides)


@pytest.fixture(scope="module")
def resnet():
    """With statistics that are not the identity."""
    torch.manual_seed(0)
    model = models.resnet18(weights=None).train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(2, 3, 64, 96))
    return model.eval()


@pytest.mark.parametrize("model", NODES)
def test_equals_torchvisions_feature_extraction(model, monkeypatch):
    kept = []
    build = models.get_model
    monkeypatch.setattr(
        torchvision_fpn.models, "get_model", lambda *a, **k: kept.append(build(*a, **k)) or kept[0]
    )
    ours = Torchvision(model=model, out_features=STAGES[1:], norm="auto").eval()
    theirs = build(model, weights=None).eval()
    theirs.load_state_dict(kept[0].state_dict(), strict=False)
    extract = create_feature_extractor(theirs, dict(zip(NODES[model], STAGES[1:], strict=True)))
    image = torch.randn(2, 3, 128, 160)
    with torch.no_grad():
        expected, found = extract(image), ours(image)
    assert list(found) == list(STAGES[1:])
    for name, value in found.items():
        if model == "swin_t" and name != "res5":
            expected[name] = expected[name].permute(0, 3, 1, 2)
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-4)
        shape = ours.output_shape()[name]
        assert value.shape == (2, shape.channels, 128 // shape.stride, 160 // shape.stride)


def test_weights_have_torchvisions_names(resnet):
    ours = Torchvision(model="resnet18", norm="BN")
    rest = ours.load_state_dict(resnet.state_dict(), strict=False)
    assert rest.missing_keys == []
    assert rest.unexpected_keys == ["fc.weight", "fc.bias"]


@pytest.mark.parametrize("norm", ["auto", "FrozenBN", "BN", "SyncBN"])
def test_norms_that_compute_the_same(resnet, norm):
    ours = Torchvision(model="resnet18", norm=norm)
    ours.load_state_dict(resnet.state_dict(), strict=False)
    kinds = {"BN": nn.BatchNorm2d, "SyncBN": nn.SyncBatchNorm}
    assert type(ours.bn1) is kinds.get(norm, FrozenBatchNorm2d)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = create_feature_extractor(resnet, {"layer4": "res5"})(image)["res5"]
        torch.testing.assert_close(ours.eval()(image)["res5"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", ["GN", "LN"])
def test_norms_that_compute_another(norm):
    ours = Torchvision(model="efficientnet_b0", norm=norm)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in ours.modules())
    if norm == "GN":  # of 24 channels, which are no multiple of 32
        norms = [m for m in ours.modules() if type(m) is nn.GroupNorm]
        assert {m.num_groups for m in norms if m.num_channels == 24} == {8}
        assert norms[0].eps == 1e-5
    assert all(x.isfinite().all() for x in ours(torch.randn(1, 3, 64, 64)).values())


@pytest.mark.parametrize("freeze_at", range(6))
def test_freezing(freeze_at):
    ours = Torchvision(model="efficientnet_b0", norm="BN", freeze_at=freeze_at)
    stages = {"stem": (0, 1), "res2": (2,), "res3": (3,), "res4": (4, 5), "res5": (6, 7, 8)}
    for number, blocks in enumerate(stages.values(), start=1):
        for block in blocks:
            stage = ours.features.get_submodule(str(block))
            assert trainable(stage) is not (number <= freeze_at), block
            assert any(type(m) is nn.BatchNorm2d for m in stage.modules()) is trainable(stage)


def test_the_stem_of_a_network_of_patches():
    network = nn.Sequential(nn.Conv2d(3, 8, 4, 4), *[nn.Conv2d(8, 8, 2, 2) for _ in range(3)])
    network.insert(1, nn.Conv2d(8, 8, 1))
    stages = group_by_stage(network, read_segments(network, 3))
    assert {name: [s.path for s in found] for name, found in stages.items()} == {
        "stem": ["0"],
        "res2": ["1"],
        "res3": ["2"],
        "res4": ["3"],
        "res5": ["4"],
    }


def test_a_frozen_stem_is_frozen_where_it_is_no_module():
    ours = Torchvision(model="resnet18", norm="BN", freeze_at=1)
    assert not trainable(ours.conv1) and type(ours.bn1) is FrozenBatchNorm2d
    assert trainable(ours.layer1)


def test_what_nobody_asks_for_is_not_there():
    ours = Torchvision(model="resnet18", out_features=("res3", "res4"))
    assert not hasattr(ours, "layer4") and not hasattr(ours, "fc")
    assert list(ours(torch.randn(1, 3, 64, 64))) == ["res3", "res4"]


@pytest.mark.parametrize("model", ["mobilenet_v3_small", "swin_t"])
def test_pyramid_from_a_config_with_more_channels(model):
    backbone = build_backbone(torchvision_cfg(model), ShapeSpec(channels=5))
    assert_is_pyramid(backbone, torch.randn(1, 5, 128, 256))


def test_settings_from_a_config():
    keys = ("MODEL.BACKBONE.Torchvision.NORM", "GN", "MODEL.BACKBONE.FREEZE_AT", 2)
    bottom_up = build_backbone(torchvision_cfg("resnet18", *keys)).bottom_up
    assert type(bottom_up.layer4[0].bn1) is nn.GroupNorm
    assert not trainable(bottom_up.layer1) and trainable(bottom_up.layer2)


def test_a_copy_is_a_network_of_its_own():
    ours = Torchvision(model="mobilenet_v3_small").eval()
    other = copy.deepcopy(ours)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = ours(image)["res5"]
        next(other.parameters()).zero_()
        assert torch.equal(ours(image)["res5"], before)
        assert not torch.equal(other(image)["res5"], before)


def test_unknown_model_lists_the_near_ones():
    with pytest.raises(UnknownNameError, match=r"Torchvision.MODEL: 'resnet5'.*mean resnet50"):
        Torchvision(model="resnet5")
    with pytest.raises(UnknownNameError, match=r"Torchvision.NORM: 'GroupN'.*Valid: .*GN, LN"):
        Torchvision(model="resnet18", norm="GroupN")


def test_models_that_will_not_do():
    with pytest.raises(ValueError, match="vit_b_16 cannot run on images of any size"):
        Torchvision(model="vit_b_16")
    with pytest.raises(ValueError, match=r"asks for 'res3'.*squeezenet1_0 gives no map"):
        Torchvision(model="squeezenet1_0")
    with pytest.raises(ValueError, match=r"'res6', but .*resnet18 gives stem \(stride 2\), res2 "):
        Torchvision(model="resnet18", out_features=("res6",))
    with pytest.raises(ValueError, match=r"NORM is GN, but convnext_tiny has no batch norm.*Layer"):
        Torchvision(model="convnext_tiny", norm="GN")
    Torchvision(model="convnext_tiny", norm="LN")  # which are its own


def test_a_network_that_is_no_chain(monkeypatch):
    class Crossed(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList(nn.Conv2d(n, 4, 1, 2) for n in (3, 4, 4, 4, 4))

        def forward(self, x):
            for part in self.parts:
                x = -part(x)
            return x

    monkeypatch.setattr(torchvision_fpn.models, "get_model", lambda *a, **k: Crossed())
    with pytest.raises(ValueError, match=r"no chain of modules up to parts.2.*write a builder"):
        Torchvision(model="resnet18")


@pytest.mark.parametrize("freeze_at", [0, 2])
def test_gradients_reach_what_learns(freeze_at):
    cfg = torchvision_cfg("mobilenet_v3_small", "MODEL.BACKBONE.FREEZE_AT", freeze_at)
    model = build_model(cfg).train()
    features = model.backbone(torch.randn(2, 3, 64, 64))
    sum(value.sum() for value in features.values()).backward()
    for name, parameter in model.backbone.named_parameters():
        assert (parameter.grad is not None) is parameter.requires_grad, name
