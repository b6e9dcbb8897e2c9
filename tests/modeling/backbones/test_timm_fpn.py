"""timm's networks: with a stand-in for timm, and with timm itself where it is installed."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import build_backbone
from support.backbone_configs import assert_is_pyramid, backbone_cfg, trainable
from torch import nn

from retina_plugin.modeling.backbones.norms import FrozenBatchNormAct2d, GroupNormAct
from retina_plugin.modeling.backbones.timm_fpn import Timm
from retina_plugin.registry import UnknownNameError

CHANNELS = (8, 16, 24, 32, 40)  # of strides 2 to 32


class BatchNormAct2d(nn.BatchNorm2d):
    """timm's kind of norm, which ends with an activation."""

    def __init__(self, channels):
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), nn.ReLU()

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


class Features(nn.ModuleDict):
    """What ``create_model(..., features_only=True)`` makes: children in turn, ``feature_info``."""

    def __init__(self, in_chans, out_indices, channels_last, size):
        before = [in_chans, *CHANNELS]
        super().__init__(
            {
                f"stage_{i}": nn.Sequential(nn.Conv2d(a, b, 2, 2), BatchNormAct2d(b))
                for i, (a, b) in enumerate(zip(before, CHANNELS, strict=False))
            }
        )
        self.indices = sorted(range(5)[i] for i in out_indices)
        for i in range(self.indices[-1] + 1, 5):
            del self[f"stage_{i}"]
        self.channels_last, self.size = channels_last, size
        self.feature_info = SimpleNamespace(
            channels=lambda: [CHANNELS[i] for i in self.indices],
            reduction=lambda: [2 ** (i + 1) for i in self.indices],
        )

    def forward(self, x):
        assert self.size in (None, x.shape[2]), f"Input height {x.shape[2]}, model {self.size}"
        maps = []
        for stage in self.values():
            x = stage(x)
            maps.append(x.permute(0, 2, 3, 1) if self.channels_last else x)
        return [maps[i] for i in self.indices]


@pytest.fixture
def timm(monkeypatch):
    """timm's functions as far as they are used, with four models."""
    module = ModuleType("timm")
    names = ["plain_tiny", "last_tiny", "sized_tiny", "flat_tiny"]

    def create_model(name, *, pretrained, features_only, in_chans, out_indices=range(5), **options):
        assert features_only and not pretrained
        if name == "flat_tiny":
            raise RuntimeError("features_only not implemented")
        if options and name != "last_tiny":
            raise TypeError(f"unexpected {list(options)}")
        size = 224 if name == "sized_tiny" or options.get("strict_img_size", True) else None
        size = None if name == "plain_tiny" else size
        return Features(in_chans, out_indices, name == "last_tiny", size)

    module.create_model = create_model
    module.list_models = lambda: names
    module.is_model = names.__contains__
    module.get_pretrained_cfg = lambda name: SimpleNamespace(mean=(0.5,) * 3, std=(0.25,) * 3)
    monkeypatch.setitem(sys.modules, "timm", module)


def timm_cfg(model, *overrides):
    return backbone_cfg("timm", "MODEL.BACKBONE.Timm.MODEL", model, *overrides)


@pytest.mark.parametrize("model", ["plain_tiny", "last_tiny"])
def test_features_are_timms(timm, model):
    ours = Timm(model=model).eval()
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        found, expected = ours(image), ours.network(image)
    assert {n: (s.stride, s.channels) for n, s in ours.output_shape().items()} == {
        "res3": (8, 24),
        "res4": (16, 32),
        "res5": (32, 40),
    }
    for value, theirs in zip(found.values(), expected, strict=True):
        theirs = theirs.permute(0, 3, 1, 2) if model == "last_tiny" else theirs
        assert torch.equal(value, theirs)


def test_other_stages(timm):
    ours = Timm(model="plain_tiny", out_features=("res2", "res4"))
    assert list(ours(torch.randn(1, 3, 64, 64))) == ["res2", "res4"]
    assert list(ours.network) == ["stage_0", "stage_1", "stage_2", "stage_3"]


def test_pyramid_from_a_config_with_more_channels(timm):
    backbone = build_backbone(timm_cfg("last_tiny"), ShapeSpec(channels=4))
    assert_is_pyramid(backbone, torch.randn(1, 4, 128, 256))


@pytest.mark.parametrize("norm", ["auto", "GN", "LN", "SyncBN", "BN"])
def test_a_norm_keeps_its_activation(timm, norm):
    ours = Timm(model="plain_tiny", norm=norm)
    kinds = {"auto": FrozenBatchNormAct2d, "GN": GroupNormAct, "BN": BatchNormAct2d}
    module = ours.network["stage_0"][1]
    assert isinstance(module, kinds.get(norm, nn.Module))
    assert [name for name, _ in module.named_children()] == ["drop", "act"]
    if norm != "SyncBN":  # in training it needs a GPU
        assert module(torch.randn(2, 8, 16, 16)).min() == 0


def test_frozen_norms_compute_the_same(timm):
    trained, frozen = Timm(model="plain_tiny", norm="BN"), Timm(model="plain_tiny")
    image = torch.randn(4, 3, 64, 64)
    trained.train()(image)  # moves the statistics
    frozen.load_state_dict(trained.state_dict())
    with torch.no_grad():
        expected = trained.eval()(image)["res5"]
        torch.testing.assert_close(frozen(image)["res5"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("freeze_at", range(6))
def test_freezing(timm, freeze_at):
    ours = Timm(model="plain_tiny", norm="BN", freeze_at=freeze_at)
    learns = [trainable(stage) for stage in ours.network.values()]
    assert learns == [number > freeze_at for number in range(1, 6)]
    kinds = [type(stage[1]) for stage in ours.network.values()]
    assert kinds == [BatchNormAct2d if x else FrozenBatchNormAct2d for x in learns]


def test_weights_expect_the_pixels_that_timm_says(timm):
    pixels = Timm(model="plain_tiny").pixel_format
    assert (pixels.order, pixels.mean, pixels.std) == ("RGB", (127.5,) * 3, (63.75,) * 3)


def test_mistakes(timm):
    with pytest.raises(UnknownNameError, match=r"Timm.MODEL: 'plain_tin'.*mean plain_tiny.* all 4"):
        Timm(model="plain_tin")
    with pytest.raises(ValueError, match=r"'res6', but timm's plain_tiny gives res1 \(stride 2\)"):
        Timm(model="plain_tiny", out_features=("res6",))
    with pytest.raises(ValueError, match=r"flat_tiny \(features_only not implemented\)"):
        Timm(model="flat_tiny")
    with pytest.raises(ValueError, match=r"sized_tiny cannot run .*any size \(Input height 192"):
        Timm(model="sized_tiny")


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"pip install 'retina-plugin\[timm\]'"):
        build_backbone(timm_cfg("resnet18"))


REAL = {
    "convnext_atto": (80, 160, 320),
    "mobilenetv3_small_050": (16, 24, 288),
    "resnet18": (128, 256, 512),
    "swin_tiny_patch4_window7_224": (192, 384, 768),
}


@pytest.mark.parametrize("model", REAL)
def test_timm_itself(model):
    timm = pytest.importorskip("timm", reason="the extra retina-plugin[timm] is not installed")
    ours = Timm(model=model, freeze_at=1).eval()
    assert tuple(s.channels for s in ours.output_shape().values()) == REAL[model]
    image = torch.randn(1, 3, 96, 160)
    theirs = timm.create_model(
        model, features_only=True, out_indices=(-3, -2, -1), **_any_size(model)
    )
    theirs.eval().load_state_dict(
        {k.removeprefix("network."): v for k, v in ours.state_dict().items()}, strict=False
    )
    with torch.no_grad():
        found, expected = ours(image), theirs(image)
    for value, wanted in zip(found.values(), expected, strict=True):
        if value.shape != wanted.shape:
            wanted = wanted.permute(0, 3, 1, 2)
        torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-4)
    if model == "resnet18":
        assert type(ours.network["bn1"]) is FrozenBatchNorm2d


def _any_size(model):
    return {"strict_img_size": False} if "swin" in model else {}
