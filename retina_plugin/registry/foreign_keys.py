"""Config keys that nothing of ours reads: they may be misspelt, or belong to somebody else.

yacs refuses unknown keys in files and in overrides, but Python code can set any:
``cfg.MODEL.RETINANET.NUM_CLASES = 3`` is a mistake, ``....SCORE_THRESH_TRAIN = 0.3`` may be another
project's key. Nobody can tell them apart, so both are a warning, once for each key.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from detectron2.config import CfgNode, get_cfg

from retina_plugin.registry.names import near_misses
from retina_plugin.registry.schema import Schema, find_node

# In nodes of Detectron2's own, which others extend too, a key must resemble a known one to be told
RESEMBLES = 0.8

logger = logging.getLogger(__name__)
_STOCK = get_cfg()
_declared: set[str] = set()
_warned: set[str] = set()


def is_stock_node(path: str) -> bool:
    """Whether Detectron2's own config has a node at a dotted path."""
    return find_node(_STOCK, path) is not None


def declare_key(path: str) -> None:
    """Say that somebody reads the config key, or node, at a dotted path: it is not warned of."""
    while path:
        _declared.add(path)
        path = path.rpartition(".")[0]


def warn_of_foreign_keys(schema: Schema, cfg: CfgNode) -> None:
    """Warn of keys in a role's node that are neither ``NAME`` nor the node of a component."""
    nodes = [component.node for component in schema.components.values()]
    warn_of_unread_keys(cfg, schema.node, schema.valid_keys, nodes=nodes, selector=schema.selector)


def warn_of_unread_keys(
    cfg: CfgNode,
    path: str,
    valid: Collection[str] = (),
    *,
    nodes: Collection[str] = (),
    selector: str | None = None,
    shared: bool = False,
) -> None:
    """Warn of the keys below a config node that neither Detectron2 nor the plugin reads.

    Args:
        cfg: the config.
        path: dotted path of the node, which need not be there.
        valid: the plugin's keys in it, beside those that are declared; Detectron2's are known.
        nodes: those of ``valid`` that are nodes themselves.
        selector: dotted path of the key that selects a component, for the advice.
        shared: other projects have keys there as well, as in all of Detectron2's nodes: only keys
            that resemble a known one are warned of.
    """
    parent, _, last = path.rpartition(".")
    node = (find_node(cfg, parent) or {}).get(last) or {}
    if not isinstance(node, dict):
        _warn_of_value(path, node, selector)
        return
    stock = find_node(_STOCK, path)
    shared = shared or stock is not None
    known = {*valid, *(stock or {})}
    declared = [x.rpartition(".")[2] for x in _declared if x.rpartition(".")[0] == path]
    for key in node:  # not items(): the doctor notes which values are read
        if key in nodes and not isinstance(node[key], dict):
            _warn_of_value(f"{path}.{key}", node[key], selector)
        if key in known or f"{path}.{key}" in _declared:
            continue
        near = near_misses(key, [*known, *declared], cutoff=RESEMBLES if shared else 0.6)
        if near or not shared:
            _warn_once(
                f"{path}.{key}",
                "is a key of neither Detectron2 nor retina_plugin: they ignore it."
                + (f" Did you mean {' or '.join(near)}?" if near else "")
                + " Nothing is wrong if it is a key of your own code.",
            )


def _warn_of_value(path: str, value: object, selector: str | None) -> None:
    """Of a single value where the plugin's keys would be: the plugin works with its defaults."""
    _warn_once(
        path,
        f"is {value!r}; retina_plugin has a node of settings there, which stay at their defaults."
        + (f" To choose a component, set {selector}." if selector else ""),
    )


def _warn_once(key: str, message: str) -> None:
    if key not in _warned:
        _warned.add(key)
        logger.warning(f"{key} {message}")
