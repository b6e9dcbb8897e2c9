"""Rates fall towards the image, by layers in the order that each kind of backbone has them."""

import sys
from types import ModuleType

import pytest
import torchvision
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, MViT, SwinTransformer, ViT, build_backbone
from detectron2.modeling.backbone import RegNet, SimpleFeaturePyramid, get_vit_lr_decay_rate
from detectron2.modeling.backbone.regnet import ResBottleneckBlock, SimpleStem
from support.backbone_configs import backbone_cfg, resnet18_keys
from support.tiny_models import TinyBottomUp
from torch import nn

from retina_plugin.modeling.backbones.mobilenet_v2_fpn import MobileNetV2
from retina_plugin.modeling.backbones.torchvision_fpn import Torchvision
from retina_plugin.modeling.layers.checkpointing import checkpoint_backbone
from retina_plugin.runs.layer_decay import layer_decay, layers_of

HALF = 0.5  # exact powers


@pytest.fixture
def timm(monkeypatch):
    """What Detectron2's transformers import of timm when they are built, with its names."""

    class Mlp(nn.Module):
        def __init__(self, in_features, hidden_features, out_features=None, act_layer=None):
            super().__init__()
            self.fc1 = nn.Linear(in_features, hidden_features)
            self.fc2 = nn.Linear(hidden_features, out_features or in_features)

    layers = ModuleType("timm.models.layers")
    layers.DropPath, layers.Mlp = nn.Identity, Mlp
    for name in ("timm", "timm.models"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "timm.models.layers", layers)


def detector(backbone):
    return nn.ModuleDict({"backbone": backbone, "head": nn.Linear(2, 2)})


def with_bottom_up(network):
    backbone = nn.Module()
    backbone.bottom_up = network
    backbone.lateral = nn.Conv2d(2, 2, 1)
    return detector(backbone)


def exponents(model, decay=HALF):
    """By parameter, how often the rate is halved."""
    factor = layer_decay(model, decay)
    powers = {HALF**power: power for power in range(40)}
    return {name: powers[factor(name)] for name, _ in model.named_parameters()}


def assert_exponents(found, expected):
    """``expected``: by the beginning of the name; the longest one counts."""
    for name, power in found.items():
        best = max((start for start in expected if name.startswith(start)), key=len)
        assert power == expected[best], name
    assert all(any(name.startswith(start) for name in found) for start in expected if start)


@pytest.mark.parametrize("norm", ["FrozenBN", "GN"])
def test_resnet(norm):
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 18, 64
    cfg.MODEL.RESNETS.NORM = norm
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    backbone = build_backbone(cfg, ShapeSpec(channels=3))
    stages = {f"backbone.bottom_up.res{i}": 6 - i for i in (2, 3, 4, 5)}
    expected = {"": 0, "backbone.bottom_up.stem": 5, **stages}
    assert_exponents(exponents(detector(backbone)), expected)
    if norm == "GN":  # stages whose class was changed are the same stages
        checkpoint_backbone(backbone)
        assert_exponents(exponents(detector(backbone)), expected)


def test_mobilenet():
    found = exponents(with_bottom_up(MobileNetV2()))
    blocks = {f"backbone.bottom_up.features.{i}.": 18 - i for i in range(18)}
    assert_exponents(found, {"": 0, **blocks})


def test_regnet():
    network = RegNet(
        stem_class=SimpleStem,
        stem_width=8,
        block_class=ResBottleneckBlock,
        depth=5,
        w_a=31.4,
        w_0=8,
        w_m=2.2,
        group_width=8,
    )
    names = ("stem", "s1", "s2", "s3", "s4")
    stages = {f"backbone.bottom_up.{name}": 5 - i for i, name in enumerate(names)}
    assert_exponents(exponents(with_bottom_up(network)), {"": 0, **stages})


def test_tiny_fpn():
    backbone = FPN(bottom_up=TinyBottomUp(), in_features=["res4", "res5"], out_channels=8)
    stages = {f"backbone.bottom_up.res{i}": 6 - i for i in (3, 4, 5)}
    assert_exponents(exponents(detector(backbone)), {"": 0, **stages})


def test_swin(timm):
    network = SwinTransformer(
        pretrain_img_size=32,
        embed_dim=4,
        depths=[1, 1, 2, 1],
        num_heads=[1, 1, 1, 1],
        ape=True,
        out_indices=(1, 2, 3),
    )
    start = "backbone.bottom_up."
    stages = {f"{start}layers.{i}": 4 - i for i in range(4)}
    first = {f"{start}patch_embed": 5, f"{start}absolute_pos_embed": 5}
    assert_exponents(exponents(with_bottom_up(network)), {"": 0, **first, **stages, start: 1})


def test_mvit(timm):
    network = MViT(
        img_size=64, embed_dim=8, depth=4, last_block_indexes=(0, 1, 2, 3), use_abs_pos=True
    )
    start = "backbone.bottom_up."
    blocks = {f"{start}blocks.{i}": 4 - i for i in range(4)}
    expected = {"": 0, f"{start}patch_embed": 5, f"{start}pos_embed": 5, **blocks, start: 1}
    assert_exponents(exponents(with_bottom_up(network)), expected)


@pytest.mark.parametrize("simple", [True, False])
def test_vit_is_detectron2s(timm, simple):
    """Its own function; our rule for others agrees, but for blocks added for detection."""
    vit = ViT(img_size=32, patch_size=16, embed_dim=8, depth=3, num_heads=1, drop_path_rate=0.0)
    if simple:
        model = detector(SimpleFeaturePyramid(vit, "last_feat", 8, (2.0, 1.0), norm="LN"))
    else:
        model = with_bottom_up(vit)
    factor = layer_decay(model, 0.7)
    names = [name for name, _ in model.named_parameters()]
    expected = {name: get_vit_lr_decay_rate(name, 0.7, 3) for name in names}
    assert {name: factor(name) for name in names} == expected
    assert len(set(expected.values())) == 5
    assert layers_of(vit) == [["patch_embed"], ["blocks.0"], ["blocks.1"], ["blocks.2"]]


def test_a_network_inside_and_norms_that_follow():
    network = nn.ModuleDict({"body": torchvision.models.resnet18()})
    del network["body"].fc
    stages = [[f"body.layer{i}"] for i in (1, 2, 3, 4)]
    assert layers_of(network) == [["body.conv1", "body.bn1"], *stages]


def test_a_backbone_without_a_neck():
    found = exponents(detector(TinyBottomUp()))
    assert found["backbone.res5.weight"] == 1 and found["backbone.res3.weight"] == 3


def test_a_network_that_names_its_layers():
    """torchvision's RegNet has two children, a stem and the four stages in one."""
    network = Torchvision(model="regnet_y_400mf", norm="GN")
    names = ["stem", *[f"trunk_output.block{i}" for i in (1, 2, 3, 4)]]
    assert layers_of(network) == [[name] for name in names]
    resnet = layers_of(Torchvision(model="resnet18", norm="GN"))
    assert resnet == [["conv1", "bn1"], *[[f"layer{i}"] for i in (1, 2, 3, 4)]]


def test_a_pyramid_within():
    """Of a registered pyramid that got levels on top."""
    cfg = backbone_cfg("registered", *resnet18_keys())
    cfg.MODEL.BACKBONE.Registered.BOTTOM_UP = "build_resnet_fpn_backbone"
    found = exponents(detector(build_backbone(cfg)))
    start = "backbone.bottom_up.bottom_up."
    stages = {f"{start}res{i}": 6 - i for i in (2, 3, 4, 5)}
    assert_exponents(found, {"": 0, f"{start}stem": 5, **stages})


class TakingTurns(nn.Module):
    """As in ConvNeXt's reference, where one list is used between the items of the other."""

    def __init__(self):
        super().__init__()
        self.downsample_layers = nn.ModuleList(nn.Conv2d(2, 2, 1) for _ in range(3))
        self.stages = nn.ModuleList(nn.Conv2d(2, 2, 1) for _ in range(3))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (with_bottom_up(TakingTurns()), r"LAYER_DECAY.*TakingTurns.*downsample_layers, stages"),
        (with_bottom_up(nn.Conv2d(2, 2, 1)), r"LAYER_DECAY.*Conv2d has no layers within"),
        (nn.Linear(2, 2), r"LAYER_DECAY is 0.5, but Linear has no backbone"),
    ],
)
def test_an_unknown_structure(model, message):
    with pytest.raises(ValueError, match=message):
        layer_decay(model, HALF)
    assert layer_decay(model, 1.0)("anything") == 1.0


@pytest.mark.parametrize("decay", [0.0, 1.1, -1.0])
def test_wrong_values(decay):
    with pytest.raises(ValueError, match=f"SOLVER.LAYER_DECAY must be.*{decay}"):
        layer_decay(with_bottom_up(TinyBottomUp()), decay)
