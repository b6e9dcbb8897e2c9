"""Anybody's registered backbone under a neck, or with the levels that it lacks."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, build_backbone
from detectron2.modeling.backbone.fpn import (
    LastLevelP6P7,
    build_resnet_backbone,
    build_retinanet_resnet_fpn_backbone,
)
from support.backbone_configs import (
    assert_is_pyramid,
    backbone_cfg,
    register_flat,
    resnet18_keys,
)

from retina_plugin.modeling.backbones.top_levels import TopLevels
from retina_plugin.registry import UnknownNameError

BOTTOM_UP = "MODEL.BACKBONE.Registered.BOTTOM_UP"
RGB = ShapeSpec(channels=3)


def cfg_of(bottom_up="build_resnet_backbone", *overrides):
    return backbone_cfg("registered", *resnet18_keys(), BOTTOM_UP, bottom_up, *overrides)


def assert_equal(ours, theirs):
    image = torch.randn(1, 3, 128, 128)
    ours.eval().load_state_dict(theirs.eval().state_dict())
    with torch.no_grad():
        expected, found = theirs(image), ours(image)
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("extra", [(), ("MODEL.BACKBONE.FREEZE_AT", 3)])
def test_resnet_with_p6_of_c5_is_detectron2s(extra):
    cfg = cfg_of("build_resnet_backbone", *extra)
    ours, theirs = build_backbone(cfg), build_retinanet_resnet_fpn_backbone(cfg, RGB)
    assert_equal(ours, theirs)
    frozen = [[n for n, p in m.named_parameters() if not p.requires_grad] for m in (ours, theirs)]
    assert frozen[0] == frozen[1]


def test_resnet_with_p6_of_p5_is_detectron2s():
    cfg = cfg_of("build_resnet_backbone", "MODEL.NECK.FPNNeck.TOP", "P5")
    theirs = FPN(
        bottom_up=build_resnet_backbone(cfg, RGB),
        in_features=["res3", "res4", "res5"],
        out_channels=16,
        top_block=LastLevelP6P7(16, 16, in_feature="p5"),
    )
    assert_equal(build_backbone(cfg), theirs)


def test_resnext():
    keys = ("MODEL.RESNETS.DEPTH", 50, "MODEL.RESNETS.NUM_GROUPS", 32)
    cfg = backbone_cfg("registered", *keys, "MODEL.RESNETS.WIDTH_PER_GROUP", 4)
    backbone = build_backbone(cfg)
    assert backbone.bottom_up.res3[0].conv2.groups == 32
    assert_is_pyramid(backbone, torch.randn(1, 3, 128, 128))


def test_outputs_of_other_names_are_found_by_their_strides(monkeypatch):
    name = register_flat(monkeypatch, low=8, middle=16, high=32)
    backbone = build_backbone(cfg_of(name))
    assert backbone.in_features == ("low", "middle", "high")
    assert_is_pyramid(backbone, torch.randn(1, 3, 128, 256))


def test_their_own_names_will_do(monkeypatch):
    name = register_flat(monkeypatch, p1=8, p2=16, p3=32)  # a Swin's, which are no levels
    backbone = build_backbone(cfg_of(name, "MODEL.FPN.IN_FEATURES", ["p1", "p2", "p3"]))
    assert backbone.in_features == ("p1", "p2", "p3")
    assert_is_pyramid(backbone, torch.randn(1, 3, 128, 128))


def test_a_pyramid_gets_what_it_lacks_on_top(monkeypatch):
    name = register_flat(monkeypatch, p2=4, p3=8, p4=16, p5=32)
    backbone = build_backbone(cfg_of(name))
    assert isinstance(backbone, TopLevels)
    image = torch.randn(2, 3, 128, 128)
    assert_is_pyramid(backbone, image)
    with torch.no_grad():
        found, below = backbone(image), backbone.bottom_up(image)
        assert torch.equal(found["p5"], below["p5"])
        last_level = LastLevelP6P7(8, 8, "p5")  # whose P6 and P7 they are
        last_level.load_state_dict({k: v for k, v in backbone.state_dict().items() if k[0] == "p"})
        expected = last_level(below["p5"])
    assert torch.equal(found["p6"], expected[0]) and torch.equal(found["p7"], expected[1])


def test_one_level_is_missing():
    cfg = cfg_of("build_resnet_fpn_backbone")  # P3 to P6, the last by pooling
    backbone = build_backbone(cfg)
    assert [name for name, _ in backbone.named_children()] == ["bottom_up", "p7"]
    assert_is_pyramid(backbone, torch.randn(1, 3, 128, 128))
    assert backbone.size_divisibility == 32


def test_a_whole_pyramid_stays_as_it_is(monkeypatch):
    name = register_flat(monkeypatch, p3=8, p4=16, p5=32, p6=64, p7=128)
    assert not hasattr(build_backbone(cfg_of(name)), "bottom_up")


def test_levels_that_cannot_be_added(monkeypatch):
    name = register_flat(monkeypatch, p3=8, p5=32)
    with pytest.raises(ValueError, match=r"asks for p3, p4, .* gives p3 \(stride 8\), p5"):
        build_backbone(cfg_of(name))


def test_strides_that_are_not_there(monkeypatch):
    name = register_flat(monkeypatch, a=4, b=8)
    with pytest.raises(ValueError, match=r"asks for 'res4', but .* gives a \(stride 4\), b"):
        build_backbone(cfg_of(name))
    with pytest.raises(ValueError, match=r"IN_FEATURES is empty.* of a \(stride 4\), b"):
        build_backbone(cfg_of(name, "MODEL.FPN.IN_FEATURES", []))


def test_more_channels():
    cfg = cfg_of("build_resnet_backbone")
    backbone = build_backbone(cfg, ShapeSpec(channels=5))
    assert_is_pyramid(backbone, torch.randn(1, 5, 128, 128))


def test_mistakes():
    with pytest.raises(UnknownNameError, match=r"BOTTOM_UP.*resnt.*mean build_resnet_backbone"):
        build_backbone(cfg_of("build_resnt_backbone"))
    with pytest.raises(ValueError, match="this very builder"):
        build_backbone(cfg_of("build_retinanet_registered_fpn_backbone"))
