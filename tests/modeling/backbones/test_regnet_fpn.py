"""Detectron2's RegNet: the same maps, named and frozen by stage."""

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling.backbone import RegNet, build_backbone
from detectron2.modeling.backbone.regnet import ResBottleneckBlock, SimpleStem
from support.backbone_configs import assert_is_pyramid, backbone_cfg, trainable
from torch import nn

from retina_plugin.modeling.backbones.regnet_fpn import RegNetStages
from retina_plugin.registry import UnknownNameError

TINY = {"depth": 5, "w_a": 31.4, "w_0": 8, "w_m": 2.2, "group_width": 8, "stem_width": 8}


def tiny_cfg(*overrides):
    keys = [x for k, v in TINY.items() for x in (f"MODEL.BACKBONE.RegNet.{k.upper()}", v)]
    return backbone_cfg("regnet", *keys, *overrides)


def test_is_detectron2s():
    ours = RegNetStages(**TINY, se_ratio=0.25, norm="BN").eval()
    theirs = RegNet(
        stem_class=SimpleStem,
        block_class=ResBottleneckBlock,
        se_ratio=0.25,
        norm="BN",
        out_features=["s2", "s3", "s4"],
        **TINY,
    ).eval()
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected, found = theirs(image), ours(image)
    assert list(found) == ["res3", "res4", "res5"]
    for own, name in zip(expected, found, strict=True):
        assert torch.equal(found[name], expected[own])
        assert ours.output_shape()[name] == theirs.output_shape()[own]


def test_pyramid_from_a_config_with_more_channels():
    backbone = build_backbone(tiny_cfg(), ShapeSpec(channels=4))
    assert_is_pyramid(backbone, torch.randn(1, 4, 128, 128))


@pytest.mark.parametrize("freeze_at", range(6))
def test_freezing(freeze_at):
    cfg = tiny_cfg("MODEL.BACKBONE.FREEZE_AT", freeze_at, "MODEL.BACKBONE.RegNet.NORM", "BN")
    network = build_backbone(cfg).bottom_up
    learns = [trainable(getattr(network, name)) for name in ("stem", "s1", "s2", "s3", "s4")]
    assert learns == [number > freeze_at for number in range(1, 6)]


def test_norms():
    kinds = {"FrozenBN": FrozenBatchNorm2d, "SyncBN": nn.SyncBatchNorm, "BN": nn.BatchNorm2d}
    for norm, kind in kinds.items():
        assert isinstance(RegNetStages(**TINY, norm=norm).stem.bn, kind)
    with pytest.raises(UnknownNameError, match=r"RegNet.NORM: 'GroupN'.*Valid: BN, FrozenBN, GN"):
        RegNetStages(**TINY, norm="GroupN")


def test_a_stage_that_is_not_there():
    with pytest.raises(ValueError, match=r"'s2', but RegNet gives res2 \(stride 4\), res3"):
        RegNetStages(**TINY, out_features=["s2"])
