"""Every key of the plugin that belongs to no component, with default and meaning, in one table."""

from __future__ import annotations

import copy
from typing import Any

from retina_plugin.config.keys import data, evaluation, model, solver
from retina_plugin.config.keys.key import Key
from retina_plugin.registry import declare_key, unknown_name

OWN_KEYS: dict[str, Key] = {**model.KEYS, **data.KEYS, **solver.KEYS, **evaluation.KEYS}
for _key in OWN_KEYS:
    declare_key(_key)


def defaults_below(node: str) -> dict[str, Any]:
    """The default values of the keys right below a node, such as ``SOLVER.NON_FINITE``."""
    names = {key.rpartition(".")[2]: key for key in OWN_KEYS if key.rpartition(".")[0] == node}
    return {name: copy.deepcopy(OWN_KEYS[key].default) for name, key in names.items()}


def check_choice(key: str, value: str) -> None:
    """Refuse a value that is none of a key's choices.

    Raises:
        UnknownNameError: lists the choices.
    """
    choices = OWN_KEYS[key].choices
    if value not in choices:
        raise unknown_name(key, value, choices)
