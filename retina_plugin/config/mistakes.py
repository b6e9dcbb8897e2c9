"""What is said about a key that does not exist or a value of the wrong type."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from detectron2.config import CfgNode

from retina_plugin.registry import ROLES, near_misses


def leaves(values: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple, Any]]:
    """Every value that is not a mapping of further keys, with the path of keys to it."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*above, str(key)))
        else:
            yield (*above, str(key)), value


def node_at(cfg: CfgNode, keys: tuple[str, ...]) -> Any:
    """The value of a dotted key, given by its parts."""
    node: Any = cfg
    for key in keys:
        node = node[key]
    return node


def first_unknown(cfg: CfgNode, keys: tuple[str, ...]) -> int | None:
    """Index of the first of `keys` that does not exist, None if all may be set."""
    name = ".".join(keys)
    if cfg.key_is_deprecated(name) or cfg.key_is_renamed(name):
        return None  # yacs knows what to say
    node: Any = cfg
    for index, key in enumerate(keys):
        if not isinstance(node, CfgNode):
            return None  # a mapping for a single value: a wrong type, not an unknown key
        if key not in node:
            return None if node.is_new_allowed() else index
        node = node[key]
    return None


def describe_unknown(cfg: CfgNode, keys: tuple[str, ...], bad: int) -> str:
    """The unknown key, and the keys that may have been meant."""
    message = f"unknown key {'.'.join(keys)}."
    if "." in keys[bad]:
        return f"{message} In a file keys are nested, not dotted: write '{_nested(keys)}'."
    near = near_misses(keys[bad], node_at(cfg, keys[:bad]), cutoff=0.7)
    meant = [(*keys[:bad], name, *keys[bad + 1 :]) for name in near]
    meant = [path for path in meant if first_unknown(cfg, path) is None] or [
        (*keys[:bad], name) for name in near
    ]
    if not meant:  # the right name in the wrong place
        meant = [path for path, _ in leaves(cfg) if path[-1] == keys[-1]]
        meant = [path for path in meant if path[:2] == ("MODEL", "RETINANET")] or meant
    hint = " or ".join(".".join(path) for path in meant[:3])
    if hint:
        message += f" Did you mean {hint}?"
    if bad < len(keys) - 1 and ".".join(keys[:bad]) in [role.node for role in ROLES]:
        message += f" If {keys[bad]} is of your own, --import its file."
    return message


def _nested(keys: tuple[str, ...]) -> str:
    *groups, last = ".".join(keys).split(".")
    return "".join(f"{group}: {{" for group in groups) + f"{last}: ..." + "}" * len(groups)


def describe_mistyped(cfg: CfgNode, keys: tuple[str, ...], value: Any) -> str:
    """What the key takes, what came, and how to write it."""
    node: Any = cfg
    for index, key in enumerate(keys):
        if not isinstance(node, CfgNode):
            name = ".".join(keys[:index])
            return f"{name} takes a single value such as {node!r}; '{key}' cannot stand below it."
        node = node[key]
    name = ".".join(keys)
    with contextlib.suppress(TypeError, RecursionError, MemoryError):
        value = CfgNode._decode_cfg_value(value)
    came = f"got {value!r} ({type(value).__name__})"
    if isinstance(node, CfgNode):
        instead = f" Set {name}.NAME instead?" if "NAME" in node else ""
        return f"{name} is a group of the keys {', '.join(sorted(node))}; {came}.{instead}"
    hint = ""
    if isinstance(node, float) and type(value) is int:
        hint = f" Write {float(value)}."
    elif isinstance(node, list | tuple):
        hint = f" Write [{value!r}]."
    elif isinstance(node, str):
        hint = " Put the text in quotes."
    elif isinstance(node, bool):
        hint = " Write True or False."
    return f"{name} must be of type {type(node).__name__}, such as {node!r}; {came}.{hint}"
