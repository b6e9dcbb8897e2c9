"""``add_retina_config``: the plugin's keys beside Detectron2's."""

from __future__ import annotations

import copy

from detectron2.config import CfgNode

from retina_plugin.config.keys import OWN_KEYS
from retina_plugin.registry import ROLES


def add_retina_config(cfg: CfgNode) -> CfgNode:
    """Add the plugin's keys with their defaults; keys that are there already keep their values.

    The components bring their keys when they register, ``config/keys`` has the rest. ``retina
    config KEY`` says what a key means.

    Returns:
        ``cfg``, for chaining.

    Raises:
        ValueError: ``cfg`` is frozen.
    """
    if cfg.is_frozen():
        raise ValueError("the config is frozen: call add_retina_config before cfg.freeze()")
    for role in ROLES:
        _add(cfg, role.node, role.config_defaults())
    for name, key in OWN_KEYS.items():
        node, _, last = name.rpartition(".")
        _add(cfg, node, CfgNode({last: copy.deepcopy(key.default)}))
    return cfg


def _add(cfg: CfgNode, path: str, defaults: CfgNode) -> None:
    """Merge ``defaults`` into the node at ``path`` wherever it has no value yet."""
    node = cfg
    for part in filter(None, path.split(".")):
        node = node.setdefault(part, type(cfg)())
    for key, value in defaults.items():
        if isinstance(value, CfgNode):
            node.setdefault(key, type(cfg)())
            _add(node, key, value)
        else:
            node.setdefault(key, value)
