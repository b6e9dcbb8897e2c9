"""What can be wrong with the components and keys of a config."""

import pytest
from detectron2.config import CfgNode, get_cfg
from torch import nn

from retina_plugin.registry import (
    UnknownNameError,
    check_components,
    require_built,
    unused_settings,
)


@pytest.mark.parametrize(
    ("sink", "vain"),
    [
        ({}, ""),
        ({"DeepSink": CfgNode({"DEPTH": 4})}, ""),  # a warning's matter: it is not selected
        ({"NAME": "DeepSink"}, "SINK.NAME DeepSink would have"),
        ({"NAME": "deep", "DeepSink": CfgNode({"DEPTH": 4})}, "DeepSink and .*DEPTH 4 would have"),
    ],
)
def test_settings_that_a_builder_did_not_look_at(role, cfg_with, sink, vain):
    cfg = cfg_with(**sink)
    network = nn.Sequential(nn.ReLU())
    if vain:
        with pytest.raises(ValueError, match=f"{vain} no effect: ask the plumber"):
            require_built(role, cfg, network, "ask the plumber")
    else:
        require_built(role, cfg, network, "ask the plumber")


def test_settings_that_a_builder_used(role, cfg_with):
    @role.register(defaults={"DEPTH": 1})
    class NetworkSink(nn.Module): ...

    cfg = cfg_with(NAME="NetworkSink", NetworkSink=CfgNode({"DEPTH": 2}))
    require_built(role, cfg, nn.Sequential(NetworkSink()), "never said")
    require_built(role, cfg, NetworkSink(), "never said")


@pytest.mark.parametrize("selected", ["giou", "smooth_l1", "BalancedL1Loss"])
@pytest.mark.parametrize(
    ("component", "key", "message"),
    [
        ("SmoothL1Loss", "BETTA", r"BOX_LOSS.SmoothL1Loss: 'BETTA' is unknown. Valid: \(none\)"),
        ("BalancedL1Loss", "ALHPA", r"BOX_LOSS.BalancedL1Loss: 'ALHPA' is unknown.*mean ALPHA"),
    ],
)
def test_a_misspelt_key_of_a_component_of_ours(selected, component, key, message):
    """Selected or not: whoever writes below our component's name means it."""
    cfg = get_cfg()
    cfg.MODEL.RETINANET.BBOX_REG_LOSS_TYPE = selected
    cfg.MODEL.RETINANET.BOX_LOSS = CfgNode({component: CfgNode({key: 1.0})})
    with pytest.raises(UnknownNameError, match=message):
        check_components(cfg)


@pytest.mark.parametrize(("key", "meant"), [("DEPHT", "DEPTH"), ("WIDTHS", None)])
def test_another_projects_node_of_the_name_of_ours(key, meant, caplog):
    """Below Detectron2's nodes others have a RegNet, too: unless ours is selected, it is theirs."""
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.RegNet = CfgNode({key: 3})
    if meant is None:
        check_components(cfg)
        assert not caplog.text
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_regnet_fpn_backbone"
    with pytest.raises(UnknownNameError, match=rf"MODEL.BACKBONE.RegNet: '{key}' is unknown"):
        check_components(cfg)


def test_settings_of_components_that_are_not_selected(role, cfg_with):
    cfg = cfg_with(DeepSink=CfgNode({"DEPTH": 4, "EDGES": [1, 2]}))
    assert unused_settings(role, cfg) == ["MODEL.RETINANET.SINK.DeepSink.DEPTH"]
    cfg.MODEL.RETINANET.SINK.NAME = "deep"
    assert unused_settings(role, cfg) == []


def test_settings_of_the_parts_of_what_is_selected(role, cfg_with):
    @role.register(defaults={"TERMS": []}, parts="TERMS")
    class SumOfSinks: ...

    cfg = cfg_with(
        NAME="SumOfSinks",
        SumOfSinks=CfgNode({"TERMS": ["deep"]}),
        DeepSink=CfgNode({"DEPTH": 4}),
        StockSink=CfgNode({"DEPTH": 4}),
    )
    assert unused_settings(role, cfg) == ["MODEL.RETINANET.SINK.StockSink.DEPTH"]


def test_an_attribute_called_parts_declares_nothing(role, cfg_with):
    @role.register(defaults={"DEPTH": 1})
    class SlicedSink:
        parts = 3

    assert unused_settings(role, cfg_with(NAME="SlicedSink")) == []
