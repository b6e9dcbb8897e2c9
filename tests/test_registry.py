"""Roles: registering, defaults, selection by config, and errors that say what is valid."""

import importlib
import inspect
import sys

import pytest
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import ANCHOR_GENERATOR_REGISTRY, BACKBONE_REGISTRY
from fvcore.common.registry import Registry
from torch import nn

from retina_plugin import add_retina_config
from retina_plugin.registry import (
    BOX_LOSSES,
    ROLES,
    Role,
    UnknownNameError,
    check_retinanet_keys,
    find_node,
    import_submodules,
    require_registered,
    unknown_name,
)

COMPONENTS = [(role, name, component) for role in ROLES for name, component in role]
NAMES = [name for _, name, _ in COMPONENTS]


@pytest.fixture
def role():
    """A role of sinks with one plain component, one that has settings and one that has both."""
    role = Role("sink", node="MODEL.RETINANET.SINK", default="PlainSink")

    @role.register
    class PlainSink: ...

    @role.register(defaults={"DEPTH": 3, "EDGES": [1, 2]}, alias="deep")
    class DeepSink:
        def __init__(self, *, depth, edges):
            self.depth, self.edges = depth, edges

    @role.register(defaults={"DEPTH": 5})
    class StockSink:
        def __init__(self, *, depth, num_classes, pipe):
            self.depth, self.num_classes, self.pipe = depth, num_classes, pipe

        @classmethod
        def from_config(cls, cfg, pipe):
            return {"num_classes": cfg.MODEL.RETINANET.NUM_CLASSES, "pipe": pipe}

    return role


def cfg_with(**sink):
    cfg = get_cfg()
    if sink:
        cfg.MODEL.RETINANET.SINK = CfgNode(sink)
    return cfg


def test_default_component(role):
    assert type(role.build(cfg_with())) is role.get("PlainSink")


def test_selected_by_name(role):
    built = role.build(cfg_with(NAME="DeepSink"))
    assert (built.depth, built.edges) == (3, [1, 2])
    assert type(role.build(cfg_with(NAME="deep"))) is type(built)


def test_settings_come_from_the_config(role):
    built = role.build(cfg_with(NAME="DeepSink", DeepSink=CfgNode({"DEPTH": 8})))
    assert (built.depth, built.edges) == (8, [1, 2])


def test_stock_keys_and_context_come_through_from_config(role):
    cfg = cfg_with(NAME="StockSink", StockSink=CfgNode({"DEPTH": 1}))
    cfg.MODEL.RETINANET.NUM_CLASSES = 9
    built = role.build(cfg, pipe="a pipe")
    assert (built.depth, built.num_classes, built.pipe) == (1, 9, "a pipe")


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


def test_selector_of_another_name():
    role = Role("sink", node="MODEL.SINK", default="Sink", selector="MODEL.RETINANET.SINK_TYPE")

    @role.register(alias="old")
    class OldSink: ...

    cfg = get_cfg()
    cfg.MODEL.RETINANET.SINK_TYPE = "old"
    assert isinstance(role.build(cfg), OldSink)
    assert role.config_defaults() == {}
    cfg.MODEL.SINK = CfgNode({"NAME": "OldSink"})  # is not what selects, and says so
    with pytest.raises(UnknownNameError, match=r"MODEL.SINK.*'NAME' is unknown"):
        role.build(cfg)


@pytest.mark.parametrize(
    ("sink", "message"),
    [
        ({"NAME": "DeepSnk"}, r"SINK.NAME: 'DeepSnk' is unknown. Did you mean DeepSink"),
        ({"NAME": "x"}, r"'x' is unknown. Valid: DeepSink, PlainSink, StockSink, deep\."),
        ({"NAME": "DeepSink", "DeepSink": CfgNode({"DEPHT": 1})}, "DeepSink: 'DEPHT'.*mean DEPTH"),
        ({"DeepSnk": CfgNode({"DEPTH": 1})}, "RETINANET.SINK: 'DeepSnk'.*mean DeepSink"),
        ({"NAEM": "DeepSink"}, "RETINANET.SINK: 'NAEM'.*mean NAME"),
    ],
)
def test_mistakes_list_what_is_valid(role, sink, message):
    with pytest.raises(UnknownNameError, match=message) as error:
        role.build(cfg_with(**sink))
    assert "\\n" not in str(error.value)  # KeyError would show the text's repr
    assert not str(error.value).startswith(("'", '"'))


@pytest.mark.parametrize(
    ("sink", "vain"),
    [
        ({}, ""),
        ({"DeepSink": CfgNode({"DEPTH": 4})}, ""),  # a warning's matter: it is not selected
        ({"NAME": "DeepSink"}, "SINK.NAME DeepSink would have"),
        ({"NAME": "deep", "DeepSink": CfgNode({"DEPTH": 4})}, "DeepSink and .*DEPTH 4 would have"),
    ],
)
def test_settings_that_a_builder_did_not_look_at(role, sink, vain):
    cfg = cfg_with(**sink)
    network = nn.Sequential(nn.ReLU())
    if vain:
        with pytest.raises(ValueError, match=f"{vain} no effect: ask the plumber"):
            role.require_built(cfg, network, "ask the plumber")
    else:
        role.require_built(cfg, network, "ask the plumber")


def test_settings_that_a_builder_used(role):
    @role.register(defaults={"DEPTH": 1})
    class NetworkSink(nn.Module): ...

    cfg = cfg_with(NAME="NetworkSink", NetworkSink=CfgNode({"DEPTH": 2}))
    role.require_built(cfg, nn.Sequential(NetworkSink()), "never said")
    role.require_built(cfg, NetworkSink(), "never said")


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


def test_registered_after_the_config_was_made(role):
    """It is built with its defaults; its node just is not in that config."""
    cfg = cfg_with(NAME="LateSink")

    @role.register(defaults={"DEPTH": 7})
    class LateSink:
        def __init__(self, *, depth):
            self.depth = depth

    assert role.build(cfg).depth == 7


def test_unknown_name_without_a_near_one():
    assert str(unknown_name("KEY", "zzz", ["b", "a"])) == "KEY: 'zzz' is unknown. Valid: a, b."


def test_require_registered():
    require_registered(BACKBONE_REGISTRY, "build_resnet_backbone", "KEY")
    with pytest.raises(UnknownNameError, match=r"KEY: 'build_resnet'.*mean .*resnet_backbone"):
        require_registered(BACKBONE_REGISTRY, "build_resnet", "KEY")


def test_find_node():
    cfg = get_cfg()
    assert find_node(cfg, "MODEL.FPN") is cfg.MODEL.FPN
    assert find_node(cfg, "MODEL.RETINANET.ASSIGNER.MaxIoUAssigner") is None


def test_a_new_file_is_discovered(tmp_path, monkeypatch):
    """A component needs a file in its family's folder, and no list of files."""
    family = tmp_path / "family_of_sinks"
    family.mkdir()
    (family / "__init__.py").write_text(
        "from retina_plugin.registry import Role, import_submodules\n"
        "ROLE = Role('sink', node='MODEL.SINK')\n"
        "import_submodules(__name__, __path__)\n"
    )
    (family / "new_sink.py").write_text(
        "from family_of_sinks import ROLE\n\n@ROLE.register\nclass NewSink: ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("family_of_sinks")
    assert "NewSink" in module.ROLE
    for name in ("family_of_sinks", "family_of_sinks.new_sink"):
        del sys.modules[name]


def test_import_submodules_imports_all(tmp_path, monkeypatch):
    package = tmp_path / "some_modules"
    package.mkdir()
    for name in ("__init__", "a", "b"):
        (package / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("some_modules")
    import_submodules("some_modules", module.__path__)
    assert {"some_modules.a", "some_modules.b"} <= sys.modules.keys()


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("NUM_CLASES", "NUM_CLASSES"),
        ("SCORE_THRESH", "SCORE_THRESH_TEST"),
        ("ASIGNER", "ASSIGNER"),
        ("BBOX_REG_LOSS_TYP", "BBOX_REG_LOSS_TYPE"),
    ],
)
def test_misspelt_key_of_retinanet(key, meant):
    """yacs lets Python set any key."""
    cfg = get_cfg()
    cfg.MODEL.RETINANET[key] = 3
    with pytest.raises(UnknownNameError, match=f"MODEL.RETINANET: '{key}'.*mean .*{meant}"):
        check_retinanet_keys(cfg)


def test_keys_that_are_no_mistake():
    cfg = add_retina_config(get_cfg())
    check_retinanet_keys(cfg)
    cfg.MODEL.RETINANET.SOMEBODY_ELSES_EXTENSION = 1
    check_retinanet_keys(cfg)


@pytest.mark.parametrize(("role", "name", "component"), COMPONENTS, ids=NAMES)
def test_every_component_follows_the_rules(role, name, component):
    """Named as in configs, documented, keyword-only, its settings being arguments of it."""
    assert component.__name__ == name
    assert component.__doc__
    settings = {key.lower() for key in role.settings(get_cfg(), name)}
    # a builder function reads its settings itself
    if "__init__" in vars(component):
        arguments = arguments_of(component)
        assert all(p.kind is p.KEYWORD_ONLY for p in arguments.values())
        assert settings <= set(arguments)


def arguments_of(component):
    """Its constructor's arguments, and those that ``**`` hands to its base's."""
    found = {}
    for owner in component.__mro__[:-1]:  # object takes nothing
        if "__init__" not in vars(owner):
            continue
        parameters = [*inspect.signature(owner.__init__).parameters.values()][1:]  # not self
        named = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
        found = {p.name: p for p in named} | found
        if len(named) == len(parameters):
            break
    return found


def test_defaults_of_the_config_are_those_of_the_constructor():
    """One home per fact: a component built by hand and one built by config are the same."""
    for role, name, component in COMPONENTS:
        if not inspect.isclass(component):
            continue
        parameters = arguments_of(component)
        for key, value in role.settings(get_cfg(), name).items():
            if value is not None:  # None leaves it to the constructor
                assert parameters[key.lower()].default == value, (name, key)


def test_box_losses_have_detectron2s_names():
    for alias in ("smooth_l1", "giou", "diou", "ciou"):
        assert BOX_LOSSES.get(alias).__name__.lower().startswith(alias.replace("_", ""))


def test_anchors_and_backbones_are_detectron2s_too():
    assert "OctaveAnchorGenerator" in ANCHOR_GENERATOR_REGISTRY
    assert "build_retinanet_mobilenet_v2_fpn_backbone" in BACKBONE_REGISTRY
