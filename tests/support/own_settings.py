"""Configs that a process without the tests' components can read."""

from retina_plugin.registry import ROLES, find_node


def drop_foreign_settings(cfg):
    """Remove the settings of what tests registered in this process; ``cfg`` is a node or a dict."""
    for role in ROLES:
        node = find_node(cfg, role.node) or {}
        for name, component in role:
            if not component.__module__.startswith("retina_plugin."):
                node.pop(role.schema.components[name].node, None)
    return cfg
