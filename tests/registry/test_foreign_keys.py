"""Keys of other projects are a warning, once each; those that may be meant for us name what."""

import pytest
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import BACKBONE_REGISTRY, build_model
from support.tiny_models import tiny_focal_cfg

from retina_plugin import add_retina_config
from retina_plugin.registry import check_components, check_retinanet_keys, foreign_keys

# What another project may well add beside Detectron2's keys of RetinaNet
PLAUSIBLE = (
    *("SCORE_THRESH_TRAIN", "NMS_THRESH_TRAIN", "TOPK_CANDIDATES_TRAIN", "FOCAL_LOSS_BETA"),
    *("BOX_REG_WEIGHTS", "NUM_CLASSES_AUX", "IOU_LABELS_AUX", "CLS_LOSS_WEIGHT", "REG_LOSS_TYPE"),
    *("BOX_LOSS_WEIGHT", "BBOX_REG_LOSS_WEIGHT", "BBOX_REG_LOSS_GAMMA", "BOX_CODERS", "NORM_CLS"),
    *("HEADS", "HEAD2", "NUM_CONVS_CLS", "NUM_BOX_CONVS", "PRIOR_PROB_BOX", "ASSIGNER2", "LOSSES"),
    *("IOU_THRESHOLDS_LOW", "SMOOTH_L1_BETA", "CLS_LOSS_TYPE", "SCORE_THRESH", "IN_FEATURES_2"),
    *("OUT_FEATURES", "NUM_ANCHORS", "NORMALIZE"),
)


def set_key(cfg, key, value):
    *path, last = key.split(".")
    node = cfg
    for part in path:
        node = node.setdefault(part, CfgNode())
    node[last] = value


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("MODEL.RETINANET.NUM_CLASES", "NUM_CLASSES"),
        ("MODEL.RETINANET.SCORE_THRESH", "SCORE_THRESH_TEST"),
        ("MODEL.RETINANET.ASIGNER", "ASSIGNER"),
        ("MODEL.RETINANET.LOS", "LOSS"),
        ("MODEL.RETINANET.LOSS.CLSS", "CLS"),
        ("MODEL.RETINANET.ASSIGNER.NAEM", "NAME"),
        ("MODEL.RETINANET.ASSIGNER.MaxIOUAssigner.X", "MaxIoUAssigner"),
        ("MODEL.BACKBONE.FREZE_AT", "FREEZE_AT"),
        ("MODEL.BACKBONE.GRADIENT_CHECKPOINT", "GRADIENT_CHECKPOINTING"),
        ("MODEL.BACKBONE.MobileNet.NORM", "MobileNetV2"),
        ("MODEL.ANCHOR_GENERATOR.SIZE", "SIZES"),
        ("MODEL.ANCHOR_GENERATOR.Octave.X", "OctaveAnchorGenerator"),
        ("MODEL.NECK.NAEM", "NAME"),
        ("MODEL.NECK.PAFPN.X", "PAFPNNeck"),
        ("MODEL.FRONT_END.NAMES", "NAME"),
    ],
)
@pytest.mark.parametrize("extended", [True, False])
def test_a_key_that_may_be_misspelt(key, meant, extended, caplog):
    """yacs lets Python set any key; a warning, once, names what may have been meant."""
    cfg = tiny_focal_cfg(extended)
    set_key(cfg, key, 3)
    build_model(cfg)
    foreign = key.removesuffix(".X").removesuffix(".NORM")
    (said,) = [x for x in caplog.messages if x.startswith(f"{foreign} is a key of neither")]
    assert f"Did you mean {meant}" in said
    caplog.clear()
    build_model(cfg)
    assert not caplog.text


@pytest.mark.parametrize(
    "key",
    [
        *("MODEL.NECK.CHANNELS", "MODEL.FRONT_END.CROP", "MODEL.DETECTOR.TEACHER"),
        *("MODEL.RETINANET.HEAD.DEPTH", "MODEL.RETINANET.LOSS.TYPE"),
    ],
)
@pytest.mark.parametrize("value", [3, CfgNode({"X": 3})], ids=["value", "node"])
def test_a_key_in_a_node_of_ours(key, value, caplog):
    """That resembles none: nobody reads it, and it may be meant so."""
    cfg = tiny_focal_cfg(True)
    set_key(cfg, key, value)
    build_model(cfg)
    assert f"{key} is a key of neither" in caplog.text
    assert "they ignore it. Nothing is wrong if it is a key of your own" in caplog.text


@pytest.mark.parametrize("key", PLAUSIBLE)
def test_plausible_keys_of_other_projects_are_no_error(key):
    cfg = add_retina_config(get_cfg())
    cfg.MODEL.RETINANET[key] = 1
    check_retinanet_keys(cfg)
    cfg.MODEL.RETINANET[key] = CfgNode({"A": 1})
    check_components(cfg)


@pytest.mark.parametrize("node", ["RETINANET", "BACKBONE", "ANCHOR_GENERATOR"])
def test_other_projects_keys_that_resemble_nothing_are_not_mentioned(node, caplog):
    cfg = tiny_focal_cfg(True)
    cfg.MODEL[node].MYNET = CfgNode({"DEPTH": 3})
    cfg.MODEL[node].SOMEBODY_ELSES = 3
    build_model(cfg)
    assert not caplog.text


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("MODEL.NECK", "PAFPN", "To choose a component, set MODEL.NECK.NAME"),
        ("MODEL.RETINANET.HEAD", "TheirHead", "set MODEL.RETINANET.HEAD.NAME"),
        ("MODEL.RETINANET.BOX_LOSS", "giou", "set MODEL.RETINANET.BBOX_REG_LOSS_TYPE"),
        ("MODEL.RETINANET.BOX_LOSS.GIoULoss", 3, "set MODEL.RETINANET.BBOX_REG_LOSS_TYPE"),
        ("MODEL.RETINANET.LOSS", "focal", ""),
        ("MODEL.BACKBONE.Swin", "tiny", "set MODEL.BACKBONE.NAME"),
        ("MODEL.DETECTOR", 3, "set MODEL.META_ARCHITECTURE"),
    ],
)
@pytest.mark.parametrize("extended", [True, False])
def test_another_projects_value_where_our_keys_would_be(key, value, said, extended, caplog):
    cfg = tiny_focal_cfg()
    set_key(cfg, key, value)
    if extended:
        add_retina_config(cfg)
    build_model(cfg)
    assert f"{key} is {value!r}; retina_plugin has a node of settings there" in caplog.text
    assert said in caplog.text


def test_a_declared_key_is_not_warned_of(caplog, _own_roles):
    foreign_keys.declare_key("MODEL.RETINANET.SCORE_THRESH_TRAIN")
    cfg = tiny_focal_cfg(True)
    cfg.MODEL.RETINANET.SCORE_THRESH_TRAIN = 0.3
    build_model(cfg)
    assert not caplog.text
    cfg.MODEL.RETINANET.SCORE_THRES_TRAIN = 0.3
    build_model(cfg)
    assert "Did you mean SCORE_THRESH_TRAIN" in caplog.text


@pytest.mark.parametrize("extended", [True, False])
def test_our_own_keys_are_known(extended, caplog):
    """Also those that no component brings: a new one is to be declared."""
    cfg = add_retina_config(get_cfg()) if extended else get_cfg()
    check_components(cfg)
    assert not caplog.text
    for node in ("RETINANET", "BACKBONE", "ANCHOR_GENERATOR"):
        ours = set(add_retina_config(get_cfg()).MODEL[node]) - set(get_cfg().MODEL[node])
        for key in ours:
            set_key(cfg, f"MODEL.{node}.{key}S", 1)
            check_components(cfg)
            assert f"MODEL.{node}.{key}S is a key of neither" in caplog.text


def test_a_backbone_of_detectron2s_registry_with_a_node_of_its_own(caplog):
    """Its builder is not registered with us."""
    assert "build_tiny_fpn_backbone" in BACKBONE_REGISTRY
    cfg = tiny_focal_cfg(True)
    cfg.MODEL.BACKBONE.TinyFPN = CfgNode({"CHANNELS": 3})
    build_model(cfg)
    assert not caplog.text
