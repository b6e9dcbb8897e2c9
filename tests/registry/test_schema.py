"""The config keys of a role and its components."""

from detectron2.config import CfgNode, get_cfg

from retina_plugin.registry import Role, find_node


def test_config_defaults(role):
    assert role.config_defaults() == {
        "NAME": "PlainSink",
        "DeepSink": {"DEPTH": 3, "EDGES": [1, 2]},
        "StockSink": {"DEPTH": 5},
    }


def test_defaults_are_nobodys_to_change(role):
    role.config_defaults().DeepSink.EDGES.append(3)
    assert role.config_defaults().DeepSink.EDGES == [1, 2]


def test_settings_node_of_another_name():
    role = Role("sink", node="MODEL.SINK")

    @role.register(defaults={"DEPTH": 3}, node="Short")
    def build_a_very_long_name(): ...

    cfg = get_cfg()
    cfg.MODEL.SINK = CfgNode({"Short": CfgNode({"DEPTH": 4})})
    assert role.config_defaults() == {"Short": {"DEPTH": 3}}
    assert role.settings(cfg, "build_a_very_long_name") == {"DEPTH": 4}


def test_find_node():
    cfg = get_cfg()
    assert find_node(cfg, "MODEL.FPN") is cfg.MODEL.FPN
    assert find_node(cfg, "MODEL.RETINANET.ASSIGNER.MaxIoUAssigner") is None
