"""Roles: registering, defaults, selection by config, and errors that say what is valid."""

import pytest
from detectron2.config import CfgNode, get_cfg
from fvcore.common.registry import Registry

from retina_plugin.registry import Role, UnknownNameError


def test_default_component(role, cfg_with):
    assert type(role.build(cfg_with())) is role.get("PlainSink")


def test_selected_by_name(role, cfg_with):
    built = role.build(cfg_with(NAME="DeepSink"))
    assert (built.depth, built.edges) == (3, [1, 2])
    assert type(role.build(cfg_with(NAME="deep"))) is type(built)


def test_settings_come_from_the_config(role, cfg_with):
    built = role.build(cfg_with(NAME="DeepSink", DeepSink=CfgNode({"DEPTH": 8})))
    assert (built.depth, built.edges) == (8, [1, 2])


def test_stock_keys_and_context_come_through_from_config(role, cfg_with):
    cfg = cfg_with(NAME="StockSink", StockSink=CfgNode({"DEPTH": 1}))
    cfg.MODEL.RETINANET.NUM_CLASSES = 9
    built = role.build(cfg, pipe="a pipe")
    assert (built.depth, built.num_classes, built.pipe) == (1, 9, "a pipe")


def test_selector_of_another_name(caplog):
    role = Role("sink", node="MODEL.SINK", default="Sink", selector="MODEL.RETINANET.SINK_TYPE")

    @role.register(alias="old")
    class OldSink: ...

    cfg = get_cfg()
    cfg.MODEL.RETINANET.SINK_TYPE = "old"
    assert isinstance(role.build(cfg), OldSink)
    assert role.config_defaults() == {}
    cfg.MODEL.SINK = CfgNode({"NAME": "OldSink"})  # is not what selects, and says so
    role.build(cfg)
    assert "MODEL.SINK.NAME is a key of neither" in caplog.text


@pytest.mark.parametrize(
    ("sink", "message"),
    [
        ({"NAME": "DeepSnk"}, r"SINK.NAME: 'DeepSnk' is unknown. Did you mean DeepSink"),
        ({"NAME": "x"}, r"'x' is unknown. Valid: DeepSink, PlainSink, StockSink, deep\."),
        ({"NAME": "DeepSink", "DeepSink": CfgNode({"DEPHT": 1})}, "DeepSink: 'DEPHT'.*mean DEPTH"),
    ],
)
def test_mistakes_list_what_is_valid(role, cfg_with, sink, message):
    with pytest.raises(UnknownNameError, match=message) as error:
        role.build(cfg_with(**sink))
    assert "\\n" not in str(error.value)  # KeyError would show the text's repr
    assert not str(error.value).startswith(("'", '"'))


def test_a_name_is_taken_once(role):
    with pytest.raises(AssertionError, match="already registered"):
        role.register(type("PlainSink", (), {}))


def test_mirror():
    """What registers with us is found by Detectron2's builders."""
    theirs = Registry("theirs")
    role = Role("sink", node="MODEL.SINK", mirror=theirs)

    @role.register(defaults={"DEPTH": 3})
    class Sink: ...

    assert theirs.get("Sink") is role.get("Sink") is Sink


def test_registered_after_the_config_was_made(role, cfg_with):
    """It is built with its defaults; its node just is not in that config."""
    cfg = cfg_with(NAME="LateSink")

    @role.register(defaults={"DEPTH": 7})
    class LateSink:
        def __init__(self, *, depth):
            self.depth = depth

    assert role.build(cfg).depth == 7
