"""What can be wrong with the components and keys of a config."""

from __future__ import annotations

import logging

from detectron2.config import CfgNode
from torch import nn

from retina_plugin.registry.foreign_keys import (
    is_stock_node,
    warn_of_foreign_keys,
    warn_of_unread_keys,
)
from retina_plugin.registry.names import require_registered
from retina_plugin.registry.role import Role
from retina_plugin.registry.roles import DETECTORS, ROLES

logger = logging.getLogger(__name__)


def check_components(cfg: CfgNode) -> None:
    """Check the components that a config names and the keys of all roles.

    Keys without effect, and keys that may be somebody else's, are warned of.

    Raises:
        UnknownNameError: a name of no component, or a key that its component does not have; lists
            the valid ones.
    """
    check_retinanet_keys(cfg)
    for role in ROLES:
        check_role(role, cfg)
    for role in ROLES:
        for key in unused_settings(role, cfg):
            logger.warning(f"{key} has no effect: {role.selector} is {role.selected(cfg)}")


def check_retinanet_keys(cfg: CfgNode) -> None:
    """Warn, once for each, of keys of ``MODEL.RETINANET`` that resemble a known one."""
    warn_of_unread_keys(cfg, "MODEL.RETINANET")


def check_role(role: Role, cfg: CfgNode) -> None:
    """Check one role's keys, and that Detectron2 knows the component where it is the one to build.

    In a node of Detectron2's own, others may have their settings under the name of a component of
    ours: there only the selected component's keys are surely meant for it.

    Raises:
        UnknownNameError: see :func:`check_components`.
    """
    schema, selected = role.schema, role.selected(cfg)
    warn_of_foreign_keys(schema, cfg)
    shared = is_stock_node(schema.node)
    for name, component in schema.components.items():
        if not shared or name == selected:
            schema.settings(cfg, name)
        else:
            warn_of_unread_keys(cfg, schema.path(name), component.defaults, shared=True)
    if role.mirror is not None and role is not DETECTORS:  # a detector is being built: it is there
        require_registered(role.mirror, selected, role.selector)


def unused_settings(role: Role, cfg: CfgNode) -> list[str]:
    """Dotted keys that ``cfg`` changes of components which it does not select."""
    schema, selected = role.schema, role.selected(cfg)
    used = {selected}
    if selected in schema.components and schema.components[selected].parts is not None:
        parts = schema.settings(cfg, selected)[schema.components[selected].parts]
        used |= {role.resolve(part) for part in parts}
    return [
        key for name in schema.components if name not in used for key in schema.changed(cfg, name)
    ]


def require_built(role: Role, cfg: CfgNode, module: nn.Module, instead: str) -> None:
    """Refuse changed settings of a role where ``module`` was built without looking at them.

    Args:
        role: the role.
        cfg: what ``module`` was built by.
        module: is or contains the component that ``cfg`` selects, or has another in its place.
        instead: who built it, and what to do.

    Raises:
        ValueError: names what ``cfg`` sets in vain.
    """
    name = role.selected(cfg)
    component = role.get(name)
    if not isinstance(component, type):
        return  # a function leaves no trace
    if any(isinstance(part, component) for part in module.modules()):
        return
    vain = [] if name == role.default else [f"{role.selector} {name}"]
    vain += [f"{key} {value}" for key, value in role.schema.changed(cfg, name).items()]
    if vain:
        raise ValueError(f"{' and '.join(vain)} would have no effect: {instead}")
