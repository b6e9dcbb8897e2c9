import gc

import pytest
from detectron2.config import CfgNode
from support.tiny_models import tiny_cfg


@pytest.fixture(autouse=True)
def _no_search_for_garbage(monkeypatch):
    """Which in a test session takes longer than the runs that it stands between."""
    monkeypatch.setattr(gc, "collect", lambda: 0)


@pytest.fixture(scope="session")
def resnet_cfg() -> CfgNode:
    """A network of frozen norms that normalize nothing, as there are without its weights."""
    cfg = tiny_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    return cfg
