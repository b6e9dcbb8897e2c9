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
        _add(cfg, role.node, role.config_defaults(), skip_values=True)
    for name, key in OWN_KEYS.items():
        node, _, last = name.rpartition(".")
        default = CfgNode({last: copy.deepcopy(key.default)})
        _add(cfg, node, default, skip_values=node.startswith("MODEL."))
    return cfg


def _add(cfg: CfgNode, path: str, defaults: CfgNode, *, skip_values: bool = False) -> None:
    """Merge ``defaults`` into the node at ``path`` wherever it has no value yet.

    Where a single value of somebody else's has the place of a node, it stays with ``skip_values``.
    """
    node = cfg
    for part in filter(None, path.split(".")):
        node = node.setdefault(part, type(cfg)())
        if not isinstance(node, CfgNode):
            if skip_values:  # the registry warns of it when a detector is built
                return
            raise ValueError(
                f"{part} is {node!r} where retina_plugin adds the keys {', '.join(defaults)} "
                f"({path}): give your own key another name"
            )
    for key, value in defaults.items():
        if isinstance(value, CfgNode):
            _add(node, key, value, skip_values=skip_values)
        else:
            node.setdefault(key, value)
