"""Pixels that the usual weights do not know are warned of; statistics that do not fit refused."""

import logging
from pathlib import Path

import pytest
from detectron2.modeling import BACKBONE_REGISTRY, build_model
from support.backbone_configs import Flat, backbone_cfg, register_flat, resnet18_keys
from torch import nn

from retina_plugin.config.config_file import load_config
from retina_plugin.modeling.backbones.input_channels import check_input_channels
from retina_plugin.modeling.backbones.mobilenet_v2_fpn import MobileNetV2
from retina_plugin.modeling.backbones.mvit_fpn import MViTStages
from retina_plugin.modeling.backbones.pixel_format import (
    FAIR_BGR,
    IMAGENET_RGB,
    MSRA_BGR,
    pixel_mismatches,
    pixel_warning,
)
from retina_plugin.modeling.backbones.regnet_fpn import RegNetStages
from retina_plugin.modeling.backbones.swin_fpn import SwinStages
from retina_plugin.modeling.backbones.torchvision_fpn import Torchvision
from retina_plugin.modeling.backbones.vit_fpn import PlainViT

BGR = {"order": "BGR", "mean": [103.53, 116.28, 123.675], "std": [1.0, 1.0, 1.0]}
STRIDES = {"a": 8, "b": 16, "c": 32}
RGB = {"order": "RGB", "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}


def test_what_fits():
    assert pixel_mismatches(MSRA_BGR, **BGR) == []
    assert pixel_mismatches(IMAGENET_RGB, **RGB) == []
    assert pixel_mismatches(IMAGENET_RGB, **{**RGB, "mean": [124, 116, 104]}) == []  # rounded
    four = {"order": "BGR", "mean": [1] * 4, "std": [2] * 4}  # channels that no weights know
    assert pixel_mismatches(IMAGENET_RGB, **four) == []


def test_what_does_not():
    assert pixel_mismatches(IMAGENET_RGB, **{**RGB, "order": "BGR"}) == [
        "INPUT.FORMAT is BGR, expected RGB"
    ]
    found = pixel_mismatches(IMAGENET_RGB, **BGR)
    assert [line.split(" is ")[0] for line in found] == [
        "INPUT.FORMAT",
        "MODEL.PIXEL_MEAN",
        "MODEL.PIXEL_STD",
    ]
    assert len(pixel_mismatches(FAIR_BGR, **BGR)) == 1


@pytest.mark.parametrize(
    ("weights", "pixels", "warned"),
    [
        ("", BGR, False),
        ("mobilenet.pth", BGR, True),
        ("mobilenet.pth", RGB, False),
        ("detectron2://ImageNetPretrained/MSRA/R-50.pkl", BGR, False),
        ("detectron2://ImageNetPretrained/MSRA/R-50.pkl", RGB, True),
        ("detectron2://ImageNetPretrained/torchvision/R-50.pkl", BGR, True),
    ],
)
def test_the_files_name_counts_first(weights, pixels, warned):
    assert (pixel_warning(MobileNetV2(), weights=weights, **pixels) is not None) is warned


def test_a_network_that_says_nothing():
    assert pixel_warning(nn.Conv2d(3, 1, 1), weights="x.pth", **BGR) is None


@pytest.mark.parametrize("family", ["torchvision", "swin", "registered"])
def test_warned_of_when_the_model_is_built(family, caplog):
    cfg = backbone_cfg(family, *resnet18_keys(), "MODEL.BACKBONE.Torchvision.MODEL", "resnet18")
    cfg.MODEL.BACKBONE.Swin.EMBED_DIM, cfg.MODEL.BACKBONE.Swin.NUM_HEADS = 12, (1, 1, 1, 1)
    with caplog.at_level(logging.WARNING):
        build_model(cfg)
        assert "other pixels" not in caplog.text
        weights = {"registered": "detectron2://ImageNetPretrained/torchvision/R-18.pkl"}
        cfg.MODEL.WEIGHTS = weights.get(family, "imagenet.pth")
        build_model(cfg)
    assert f"MODEL.WEIGHTS is {cfg.MODEL.WEIGHTS}: the usual weights of" in caplog.text
    assert "INPUT.FORMAT is BGR, expected RGB" in caplog.text


def test_a_backbone_for_other_channels(monkeypatch):
    name = register_flat(monkeypatch, **STRIDES)
    keys = ("MODEL.BACKBONE.Registered.BOTTOM_UP", name)
    pixels = ("MODEL.PIXEL_MEAN", [1.0] * 5, "MODEL.PIXEL_STD", [1.0] * 5)
    build_model(backbone_cfg("registered", *keys, *pixels))
    monkeypatch.setitem(BACKBONE_REGISTRY._obj_map, name, lambda *_: Flat(STRIDES, channels=3))
    cfg = backbone_cfg("registered", *keys, *pixels)
    with pytest.raises(ValueError, match=r"\(project\) takes 3 channels, .* images have 5"):
        build_model(cfg)


def test_a_first_convolution_that_sees_something_else():
    """Which is no reason to refuse the network: it runs."""
    check_input_channels(nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 4, 3)), 3)
    check_input_channels(nn.ReLU(), 3)


CONFIGS = Path(__file__).parents[3] / "configs/backbones"
NETWORKS = {
    "registered": None,  # Detectron2's, by the name of the file of weights
    "regnet": RegNetStages,
    "swin": SwinStages,
    "mvit": MViTStages,
    "vit": PlainViT,
    "torchvision": Torchvision,
    "timm": None,  # timm says
}


def test_the_configs_have_their_backbones_pixels():
    seen = set()
    for path in CONFIGS.glob("*.yaml"):
        cfg = load_config(path)
        family = cfg.MODEL.BACKBONE.NAME.split("_")[2]
        seen.add(family)
        pixels = {"mean": cfg.MODEL.PIXEL_MEAN, "std": cfg.MODEL.PIXEL_STD}
        expected = getattr(NETWORKS[family], "pixel_format", None)
        if family == "timm":
            expected = IMAGENET_RGB
        if expected is not None:
            assert pixel_mismatches(expected, order=cfg.INPUT.FORMAT, **pixels) == [], path.name
    assert seen == NETWORKS.keys()
