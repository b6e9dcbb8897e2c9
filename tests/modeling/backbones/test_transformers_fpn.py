"""Detectron2's Swin, MViT and ViT: the same maps, named and frozen by stage, without timm too."""

import sys
from types import ModuleType

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import MViT, SimpleFeaturePyramid, SwinTransformer, ViT, build_backbone
from support.backbone_configs import assert_is_pyramid, backbone_cfg, trainable
from torch import nn

from retina_plugin.modeling.backbones.mvit_fpn import MViTStages
from retina_plugin.modeling.backbones.swin_fpn import SwinStages
from retina_plugin.modeling.backbones.timm_layers import DropPath, Mlp, layers_of_timm
from retina_plugin.modeling.backbones.vit_fpn import PlainViT, SimplePyramid

RGB = ShapeSpec(channels=3)
SWIN = {"embed_dim": 12, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 3, 4), "window_size": 3}
MVIT = {"embed_dim": 16, "depths": (1, 1, 1, 1), "window_size": 8}
VIT = {"embed_dim": 24, "depth": 4, "num_heads": 2, "window_size": 4, "img_size": 128}
VIT["global_blocks"] = 2


def cfg_of(family, node, settings, *overrides):
    keys = [x for k, v in settings.items() for x in (f"MODEL.BACKBONE.{node}.{k.upper()}", v)]
    return backbone_cfg(family, *keys, *overrides)


FAMILIES = [("swin", "Swin", SWIN), ("mvit", "MViT", MVIT), ("vit", "ViT", VIT)]
PARAMETERS = pytest.mark.parametrize(("family", "node", "settings"), FAMILIES)


def assert_same(ours, theirs, names):
    """Equal maps; ``names``: theirs -> ours."""
    ours.eval().load_state_dict(theirs.eval().state_dict())
    image = torch.randn(1, 3, 96, 160)
    with torch.no_grad():
        expected, found = theirs(image), ours(image)
    assert list(found) == [names.get(name, name) for name in expected]
    assert all(torch.equal(found[names.get(n, n)], value) for n, value in expected.items())


def test_swin_is_detectron2s():
    ours = SwinStages(**SWIN)
    with layers_of_timm():
        theirs = SwinTransformer(**SWIN, out_indices=(1, 2, 3))
    assert_same(ours, theirs, {"p1": "res3", "p2": "res4", "p3": "res5"})
    assert {n: (s.stride, s.channels) for n, s in ours.output_shape().items()} == {
        "res3": (8, 24),
        "res4": (16, 48),
        "res5": (32, 96),
    }
    assert ours.size_divisibility == 32


def test_mvit_is_detectron2s():
    with layers_of_timm():
        theirs = MViT(
            embed_dim=16,
            depth=4,
            last_block_indexes=(0, 1, 2, 3),
            adaptive_window_size=8,
            norm_layer=lambda channels: nn.LayerNorm(channels, eps=1e-6),
            out_features=["scale3", "scale4", "scale5"],
        )
    names = {"scale3": "res3", "scale4": "res4", "scale5": "res5"}
    assert_same(MViTStages(**MVIT), theirs, names)


def test_vit_with_its_pyramid_is_detectron2s():
    ours = SimplePyramid(net=PlainViT(**VIT), out_channels=16)
    with layers_of_timm():
        net = ViT(
            img_size=128,
            embed_dim=24,
            depth=4,
            num_heads=2,
            window_size=4,
            window_block_indexes=[0, 2],
            norm_layer=lambda channels: nn.LayerNorm(channels, eps=1e-6),
            use_rel_pos=True,
        )
    theirs = SimpleFeaturePyramid(net, "last_feat", 16, (2.0, 1.0, 0.5), ours.top_block)
    assert_same(ours, theirs, {})


@PARAMETERS
def test_pyramid_from_a_config_with_more_channels(family, node, settings):
    backbone = build_backbone(cfg_of(family, node, settings), ShapeSpec(channels=5))
    assert_is_pyramid(backbone, torch.randn(2, 5, 128, 256))
    assert backbone.size_divisibility == 32


@PARAMETERS
def test_gradients_reach_all_that_is_there(family, node, settings):
    """A parameter that nothing uses would stop training on several GPUs."""
    backbone = build_backbone(cfg_of(family, node, settings), RGB).train()
    sum(value.sum() for value in backbone(torch.randn(1, 3, 128, 128)).values()).backward()
    assert [n for n, p in backbone.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("freeze_at", range(6))
def test_freezing(freeze_at):
    swin = SwinStages(**SWIN, freeze_at=freeze_at)
    mvit = MViTStages(**MVIT, freeze_at=freeze_at)
    vit = PlainViT(**VIT, freeze_at=freeze_at)
    for network, stages in ((swin, swin.layers), (mvit, mvit.blocks), (vit, vit.blocks)):
        learns = [trainable(network.patch_embed), *map(trainable, stages)]
        assert learns == [number > freeze_at for number in range(1, 6)], type(network)
    assert vit.pos_embed.requires_grad is (freeze_at == 0)


def test_timm_is_not_needed_and_not_left_behind(monkeypatch):
    for name in [x for x in sys.modules if x.partition(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "timm", None)  # cannot be imported
    swin = SwinStages(**SWIN, drop_path_rate=0.5)
    names = PlainViT(**VIT).state_dict()
    assert "timm.models.layers" not in sys.modules
    assert {"blocks.0.mlp.fc1.weight", "blocks.0.mlp.fc2.bias"} <= names.keys()
    image = torch.randn(4, 3, 64, 64)
    torch.manual_seed(0)
    first, second = swin.train()(image)["res5"], swin(image)["res5"]
    assert not torch.equal(first, second)  # paths are dropped
    assert torch.equal(swin.eval()(image)["res5"], swin(image)["res5"])


def test_the_layers_of_timm_are_taken_where_they_are(monkeypatch):
    class TheirMlp(Mlp): ...

    layers = ModuleType("timm.models.layers")
    layers.DropPath, layers.Mlp = DropPath, TheirMlp
    monkeypatch.setitem(sys.modules, "timm.models.layers", layers)
    assert type(PlainViT(**VIT).blocks[0].mlp) is TheirMlp
    assert sys.modules["timm.models.layers"] is layers


def test_a_neck_has_no_effect_on_a_vit(caplog):
    cfg = cfg_of("vit", "ViT", VIT)
    build_backbone(cfg)
    assert not caplog.records
    cfg.MODEL.NECK.NAME = "OtherNeck"
    build_backbone(cfg)
    assert "MODEL.NECK.NAME has no effect" in caplog.text


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SwinStages(out_features=["res6"]), r"'res6', but Swin gives res2 \(stride 4\)"),
        (lambda: SwinStages(depths=(2, 2)), r"Swin.DEPTHS and NUM_HEADS.*four.*got \[2, 2\]"),
        (lambda: SwinStages(embed_dim=100), "3 heads do not divide the 100 channels of res2"),
        (lambda: MViTStages(depths=(1, 2)), r"MViT.DEPTHS.*four.*\[1, 2\]"),
        (lambda: PlainViT(num_heads=7), "ViT.NUM_HEADS: 7 heads do not divide EMBED_DIM 768"),
        (lambda: PlainViT(global_blocks=5), "GLOBAL_BLOCKS is 5, which must divide DEPTH 12"),
    ],
)
def test_mistakes(build, message):
    with pytest.raises(ValueError, match=message):
        build()
