"""Keys that were changed and that nothing reads are named, with what to set instead."""

import logging

import pytest
from support.tiny_models import tiny_focal_cfg

from retina_plugin.data.findings import Findings
from retina_plugin.registry import find_node
from retina_plugin.workbench.doctor.idle_keys import check_idle_keys
from retina_plugin.workbench.doctor.meta_model import build_meta_model


def idle(*pairs, **options):
    """Findings by key, for the tiny detector with some keys changed."""
    cfg = tiny_focal_cfg()
    for key, value in pairs:
        node, _, last = key.rpartition(".")
        assert last in find_node(cfg, node), key
        find_node(cfg, node)[last] = value
    findings = Findings()
    check_idle_keys(cfg, build_meta_model(cfg), findings, **options)
    return {x.where: x for x in findings}


def test_nothing_to_say_of_keys_that_are_read():
    assert idle() == {}
    read = [
        ("MODEL.RETINANET.SCORE_THRESH_TEST", 0.2),
        ("MODEL.RETINANET.SMOOTH_L1_LOSS_BETA", 0.2),
        ("MODEL.RETINANET.FOCAL_LOSS_GAMMA", 1.0),
        ("MODEL.RETINANET.LOSS.BOX_REG", 2.0),
        ("MODEL.PIXEL_STD", [2.0, 2.0, 2.0]),
        ("MODEL.WEIGHTS", "x.pth"),
        ("MODEL.CHANNELS_LAST", True),
        ("MODEL.WINOGRAD", True),
        ("MODEL.FOLD_FROZEN_NORMS", True),
        ("MODEL.BACKBONE.GRADIENT_CHECKPOINTING", True),
        ("MODEL.ANCHOR_GENERATOR.OFFSET", 0.5),
        ("MODEL.RETINANET.NORMALIZER.EMANormalizer.MOMENTUM", 0.5),
    ]
    assert idle(*read) == {}


@pytest.mark.parametrize(
    ("key", "value", "fix"),
    [
        ("MODEL.ROI_HEADS.NUM_CLASSES", 3, "MODEL.RETINANET.NUM_CLASSES=3"),
        ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.3, "MODEL.RETINANET.SCORE_THRESH_TEST=0.3"),
        ("MODEL.RPN.IN_FEATURES", ["p3"], "'MODEL.RETINANET.IN_FEATURES=['\"'\"'p3'\"'\"']'"),
        ("MODEL.RPN.POST_NMS_TOPK_TEST", 50, "TEST.DETECTIONS_PER_IMAGE=50"),
        ("MODEL.ROI_BOX_HEAD.FC_DIM", 7, ""),
        ("MODEL.RESNETS.DEPTH", 101, ""),  # the tiny backbone is no ResNet
        ("MODEL.SEM_SEG_HEAD.LOSS_WEIGHT", 0.5, ""),
    ],
)
def test_keys_of_other_architectures(key, value, fix):
    (finding,) = idle((key, value)).values()
    assert finding.level == logging.WARNING
    assert finding.where == key and finding.fix == fix
    assert "has no effect on FocalRetinaNet" in finding.what
    assert "ignored" in finding.why and (fix or "Leave it out" in finding.advice)


def test_stock_keys_that_the_chosen_component_ignores():
    giou = ("MODEL.RETINANET.BBOX_REG_LOSS_TYPE", "giou")
    beta = ("MODEL.RETINANET.SMOOTH_L1_LOSS_BETA", 0.5)
    assert [*idle(giou, beta)] == [beta[0]]
    atss = ("MODEL.RETINANET.ASSIGNER.NAME", "ATSSAssigner")
    rule = ("MODEL.RETINANET.IOU_THRESHOLDS", [0.3, 0.6])
    assert [*idle(atss, rule)] == [rule[0]]
    assert idle(rule) == {}


def test_settings_of_a_component_that_is_not_chosen():
    key = "MODEL.RETINANET.ASSIGNER.ATSSAssigner.TOPK"
    (finding,) = idle((key, 5)).values()
    assert finding.where == key
    assert finding.fix == "MODEL.RETINANET.ASSIGNER.NAME=ATSSAssigner"
    assert "MODEL.RETINANET.ASSIGNER.NAME is MaxIoUAssigner" in finding.what
    assert idle((key, 5), ("MODEL.RETINANET.ASSIGNER.NAME", "ATSSAssigner")) == {}
    assert idle((key, 5), settings=False) == {}  # the model is built next, and says it


def test_what_comes_with_a_base_is_no_warning():
    key = "MODEL.ROI_HEADS.NUM_CLASSES"
    assert idle((key, 3), own=["SEED"])[key].level == logging.INFO
    assert idle((key, 3), own=[key])[key].level == logging.WARNING


def test_a_model_that_cannot_be_built():
    cfg = tiny_focal_cfg(FOCAL_LOSS_GAMMA=-1.0)
    built = build_meta_model(cfg)
    assert built.model is None and "FOCAL_LOSS_GAMMA" in built.error
    findings = Findings()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    check_idle_keys(cfg, built, findings)  # nobody knows what would have been read
    assert list(findings) == []


def test_a_loss_that_counts_the_data_is_built_without_them():
    assert idle(("MODEL.RETINANET.CLS_LOSS.NAME", "ClassWeightedFocalLoss")) == {}
    cfg = tiny_focal_cfg()
    cfg.MODEL.RETINANET.CLS_LOSS.NAME = "ClassWeightedFocalLoss"
    assert build_meta_model(cfg).error == ""


def test_building_leaves_the_config_and_the_log_alone(caplog):
    cfg = tiny_focal_cfg()
    cfg.MODEL.RETINANET.ASSIGNER.ATSSAssigner.TOPK = 5
    cfg.freeze()
    before = cfg.dump()
    with caplog.at_level(logging.WARNING):
        built = build_meta_model(cfg)
    assert cfg.dump() == before and cfg.is_frozen()
    assert caplog.records == [] and any("TOPK" in text for text in built.warnings)
    assert {p.device.type for p in built.model.parameters()} == {"meta"}
