"""Every registered component keeps the rules of the house."""

import inspect

import pytest
from detectron2.config import get_cfg
from detectron2.modeling import ANCHOR_GENERATOR_REGISTRY, BACKBONE_REGISTRY

from retina_plugin.registry import BOX_LOSSES, ROLES

COMPONENTS = [(role, name, component) for role in ROLES for name, component in role]
NAMES = [name for _, name, _ in COMPONENTS]


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
