import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from support.tiny_models import tiny_cfg, tiny_focal_cfg

from retina_plugin import FocalRetinaNet
from retina_plugin.registry import BOX_LOSSES, ComponentSettings
from retina_plugin.workbench.benchmark.cases import Case
from retina_plugin.workbench.benchmark.contenders import build_contenders, features_and_maps

BATCH = Case(images=1, boxes=3, height=64, width=64, classes=7).batch()


def build(cfg, against_stock=True):
    contenders, notes = build_contenders(cfg, BATCH, against_stock=against_stock)
    return {c.name: c for c in contenders}, "\n".join(notes)


@pytest.mark.parametrize("cfg", [tiny_cfg(), tiny_focal_cfg()])
def test_stock_and_plugin_with_the_same_weights(cfg):
    before = cfg.dump()
    found, notes = build(cfg)
    assert list(found) == ["stock", "plugin"]
    assert type(found["plugin"].model) is FocalRetinaNet
    ours = found["plugin"].model.state_dict()
    for name, value in found["stock"].model.state_dict().items():
        assert torch.equal(value, ours[name]), name
    assert "differs" not in notes
    assert ("in its place" in notes) == (cfg.MODEL.META_ARCHITECTURE == "RetinaNet")
    assert cfg.dump() == before


def test_what_registers_after_the_config_was_made_is_no_difference(monkeypatch):
    cfg = tiny_focal_cfg(True)
    later = ComponentSettings("LaterLoss", {"SCALE": 1.0})
    monkeypatch.setitem(BOX_LOSSES.schema.components, "LaterLoss", later)
    assert "differs" not in build(cfg)[1]
    cfg.MODEL.RETINANET.LOSS.CLS = 2.0
    assert "stock differs in LOSS" in build(cfg)[1]


def test_calibrated_frozen_norms_reach_both(resnet_cfg):
    """The plugin folds them into convolutions, where calibration could not find them."""
    found, _ = build(resnet_cfg)
    norms = [m for m in found["stock"].model.modules() if isinstance(m, FrozenBatchNorm2d)]
    assert norms and all(norm.running_mean.abs().min() > 0 for norm in norms)
    logits = {name: features_and_maps(contender)[1] for name, contender in found.items()}
    assert 0.1 < logits["stock"][0].std() < 10
    for stock, plugin in zip(logits["stock"], logits["plugin"], strict=True):
        torch.testing.assert_close(plugin, stock, rtol=1e-3, atol=1e-3)


def test_alone():
    found, _ = build(tiny_focal_cfg(), against_stock=False)
    assert list(found) == ["plugin"]


def test_what_stock_cannot_follow_is_said():
    cfg = tiny_focal_cfg(BBOX_REG_LOSS_TYPE="GIoULoss")
    cfg.MODEL.RETINANET.NORMALIZER.NAME = "BatchNormalizer"
    cfg.MODEL.RETINANET.ASSIGNER.MaxIoUAssigner.ALLOW_LOW_QUALITY_MATCHES = False
    found, notes = build(cfg)
    assert list(found) == ["stock", "plugin"]
    for setting in ("BBOX_REG_LOSS_TYPE (GIoULoss)", "NORMALIZER (BatchNormalizer)", "ASSIGNER"):
        assert setting in notes
    assert "CLS_LOSS" not in notes


def test_no_detector_of_stock():
    cfg = tiny_focal_cfg()
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "OctaveAnchorGenerator"
    cfg.MODEL.ANCHOR_GENERATOR.OctaveAnchorGenerator.SCALES_PER_OCTAVE = 3
    cfg.MODEL.RETINANET.NUM_CLASSES = None
    with pytest.raises(ValueError, match="NUM_CLASSES"):
        build(cfg)
    cfg = tiny_focal_cfg()
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[16], [32], [64], [128], [256, 300]]
    with pytest.raises(ValueError, match=r"stock's RetinaNet cannot be built.*leave out --against"):
        build(cfg)
    assert list(build(cfg, against_stock=False)[0]) == ["plugin"]


def test_other_detectors_are_refused():
    cfg = tiny_focal_cfg()
    cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    with pytest.raises(ValueError, match="GeneralizedRCNN: this compares RetinaNets"):
        build(cfg)
    cfg.MODEL.META_ARCHITECTURE = "FocalRetinanet"
    with pytest.raises(KeyError, match="FocalRetinaNet"):
        build(cfg)
