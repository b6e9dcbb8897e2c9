"""MobileNetV2 against torchvision's, live, and its place in a Detectron2 config."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import build_backbone
from torch import nn
from torchvision.models import mobilenet_v2

from retina_plugin import add_retina_config
from retina_plugin.modeling.backbones.mobilenet_v2_fpn import MobileNetV2
from retina_plugin.registry import UnknownNameError

STAGES = ("res2", "res3", "res4", "res5")
ENDS = {"stem": 2, "res2": 4, "res3": 7, "res4": 14, "res5": 18}


@pytest.fixture(scope="module")
def theirs():
    """torchvision's network with statistics that are not the identity."""
    torch.manual_seed(0)
    model = mobilenet_v2(weights=None)
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(2, 3, 64, 96))
    return model.eval()


def fpn_cfg(extended=True):
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_mobilenet_v2_fpn_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 16
    return add_retina_config(cfg) if extended else cfg


def is_trainable(module):
    return any(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize("norm", ["FrozenBN", "BN", "SyncBN"])
def test_equals_torchvision(theirs, norm):
    ours = MobileNetV2(out_features=STAGES, norm=norm).eval()
    ours.load_state_dict(ours.map_pretrained(theirs.state_dict()))
    image = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        found = ours(image)
        for name in STAGES:
            expected = theirs.features[: ENDS[name]](image)
            torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-4)


def test_output_shape_is_the_truth():
    ours = MobileNetV2(out_features=("stem", *STAGES))
    found = ours(torch.randn(1, 3, 64, 128))
    shapes = ours.output_shape()
    assert list(found) == list(shapes) == ["stem", *STAGES]
    for name, shape in shapes.items():
        assert found[name].shape == (1, shape.channels, 64 // shape.stride, 128 // shape.stride)


def test_only_what_is_asked_for():
    assert list(MobileNetV2(out_features=("res4",))(torch.randn(1, 3, 32, 32))) == ["res4"]


@pytest.mark.parametrize("counters", [True, False])
def test_foreign_weights_map_by_order(theirs, counters):
    """Another repository's names, a classifier behind, with BatchNorm's counters or without."""
    foreign = {
        f"another.{name}": tensor
        for name, tensor in theirs.state_dict().items()
        if counters or not name.endswith("num_batches_tracked")
    }
    ours = MobileNetV2(out_features=STAGES, norm="BN")
    ours.load_state_dict(ours.map_pretrained(foreign))
    expected = theirs.state_dict()
    for name, tensor in ours.state_dict().items():
        if counters or not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, expected[name]), name


def test_weights_of_another_network_are_refused(theirs):
    ours = MobileNetV2()
    state = dict(theirs.state_dict())
    wide = {**state, "features.0.0.weight": torch.zeros(64, 3, 3, 3)}
    with pytest.raises(ValueError, match=r"no MobileNetV2.*0.0.weight \(64, 3, 3, 3\) came for"):
        ours.map_pretrained(wide)
    with pytest.raises(ValueError, match="no MobileNetV2 of width 1: 10 tensors for 255"):
        ours.map_pretrained(dict(list(state.items())[:12]))  # two are counters
    with pytest.raises(ValueError, match="no MobileNetV2 of width 1: 0 tensors for 255"):
        ours.map_pretrained({})


@pytest.mark.parametrize("norm", ["FrozenBN", "BN", "SyncBN"])
def test_norms(norm):
    kinds = {"FrozenBN": FrozenBatchNorm2d, "BN": nn.BatchNorm2d, "SyncBN": nn.SyncBatchNorm}
    modules = list(MobileNetV2(norm=norm).modules())
    assert sum(type(m) is kinds[norm] for m in modules) == 51  # features[:18] has so many
    assert not any(type(m) in kinds.values() for m in modules if type(m) is not kinds[norm])


@pytest.mark.parametrize("freeze_at", range(6))
def test_freezing(freeze_at):
    ours = MobileNetV2(norm="BN", freeze_at=freeze_at)
    for number, (name, (begin, end)) in enumerate(ours._STAGES.items(), start=1):
        stage = ours.features[begin:end]
        frozen = number <= freeze_at
        assert is_trainable(stage) is not frozen, name
        assert any(type(m) is nn.BatchNorm2d for m in stage.modules()) is not frozen


def test_frozen_statistics_do_not_move():
    ours = MobileNetV2(norm="BN", freeze_at=2).train()
    before = {k: v.clone() for k, v in ours.state_dict().items() if k.endswith("running_mean")}
    ours(torch.randn(2, 3, 32, 32))
    moved = {k for k, v in before.items() if not torch.equal(v, ours.state_dict()[k])}
    assert moved
    assert not any(int(name.split(".")[1]) < ENDS["res2"] for name in moved)


def test_gradients_reach_the_first_layer_unless_frozen():
    image = torch.randn(1, 3, 32, 32)
    for freeze_at, reached in ((0, True), (1, False)):
        ours = MobileNetV2(freeze_at=freeze_at)
        ours(image)["res5"].sum().backward()
        first = next(ours.features[0].parameters())
        assert (first.grad is not None) is reached
        assert next(ours.features[5].parameters()).grad is not None


def test_mistakes_list_what_is_valid():
    with pytest.raises(UnknownNameError, match=r"MobileNetV2.NORM.*FrozenBM.*mean FrozenBN.*SyncB"):
        MobileNetV2(norm="FrozenBM")
    with pytest.raises(UnknownNameError, match=r"FPN.IN_FEATURES.*res6.*Valid: res2, res3, res4"):
        MobileNetV2(out_features=("res6",))


@pytest.mark.parametrize("extended", [True, False])
def test_pyramid_from_a_config(extended):
    cfg = fpn_cfg(extended)
    backbone = build_backbone(cfg)
    shapes = backbone.output_shape()
    assert {n: (s.stride, s.channels) for n, s in shapes.items()} == {
        f"p{level}": (2**level, 16) for level in range(3, 8)
    }
    maps = backbone(torch.randn(1, 3, 128, 128))
    assert [tuple(maps[f"p{level}"].shape[2:]) for level in range(3, 8)] == [
        (128 // 2**level,) * 2 for level in range(3, 8)
    ]
    assert backbone.top_block.p6.in_channels == 320  # P6 from C5, as in the paper


def test_more_channels():
    backbone = build_backbone(fpn_cfg(), ShapeSpec(channels=5))
    assert backbone(torch.randn(1, 5, 64, 64))["p3"].shape == (1, 16, 8, 8)


def test_settings_from_a_config():
    cfg = fpn_cfg()
    cfg.merge_from_list(["MODEL.BACKBONE.MobileNetV2.NORM", "BN", "MODEL.BACKBONE.FREEZE_AT", "1"])
    bottom_up = build_backbone(cfg).bottom_up
    assert any(type(m) is nn.BatchNorm2d for m in bottom_up.modules())
    assert not is_trainable(bottom_up.features[:2])
    assert is_trainable(bottom_up.features[2])


def test_a_misspelt_setting_is_an_error():
    cfg = fpn_cfg()
    cfg.MODEL.BACKBONE.MobileNetV2.NORMS = "BN"
    with pytest.raises(UnknownNameError, match=r"BACKBONE.MobileNetV2.*NORMS.*Did you mean NORM"):
        build_backbone(cfg)
