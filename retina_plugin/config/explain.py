"""Explain config keys: type, default, meaning, valid names, and where a config sets them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from detectron2.config import CfgNode, get_cfg

from retina_plugin.config.defaults import add_retina_config
from retina_plugin.config.docstrings import described_settings
from retina_plugin.config.keys import OWN_KEYS
from retina_plugin.config.keys.detectron2 import NO_EFFECT, STOCK_KEYS
from retina_plugin.config.mistakes import leaves
from retina_plugin.config.names import WILDCARDS
from retina_plugin.registry import DETECTORS, ROLES, Role, UnknownNameError

PLUGIN, DETECTRON2 = "retina_plugin", "Detectron2"
ROLES_AND_CODE = re.compile(r"(?::\w+:)?`+([^`]+)`+")  # of reStructuredText
HAS_NO_EFFECT = "A key of Detectron2 that has no effect on a RetinaNet."
UNKNOWN = "A key of Detectron2."


@dataclass(frozen=True)
class Explanation:
    """What there is to say about a key.

    Attributes:
        key: dotted.
        type: of its values; `any` where the default is None.
        default: its value where nothing sets it.
        meaning: text in Markdown's notation of code.
        valid: names or values that it may have, where they can be listed.
        owner: who reads it: `Detectron2`, `retina_plugin`, or the name of a component.
    """

    key: str
    type: str
    default: Any
    meaning: str
    valid: tuple[str, ...]
    owner: str

    @property
    def text(self) -> str:
        """The meaning, and the valid names unless the meaning says them."""
        missing = [name for name in self.valid if f"`{name}`" not in self.meaning]
        names = ", ".join(f"`{name}`" for name in self.valid)
        return f"{self.meaning} One of {names}." if missing else self.meaning

    @property
    def has_effect(self) -> bool:
        """Whether it is known to have an effect on a RetinaNet."""
        return self.meaning not in (HAS_NO_EFFECT, UNKNOWN)


def explain_all() -> list[Explanation]:
    """All keys, those of Detectron2 as well, by name."""
    cfg = add_retina_config(get_cfg())
    found = {".".join(keys): value for keys, value in leaves(cfg)}
    values = {key: value for key, value in found.items() if not isinstance(value, CfgNode)}
    settings = _component_keys()
    names = {role.selector: _names(role) for role in ROLES if role is not DETECTORS}
    return [_explain(key, values[key], settings, names) for key in sorted(values)]


def _names(role: Role) -> tuple[str, ...]:
    """The names that a role's selector may have, those of Detectron2's registry included."""
    return tuple(sorted({*role.names(), *dict(role.mirror or ())}))


def _explain(
    key: str,
    default: Any,
    settings: dict[str, tuple[str, str, tuple[str, ...]]],
    names: dict[str, tuple[str, ...]],
) -> Explanation:
    valid: tuple[str, ...] = names.get(key, ())
    if key in OWN_KEYS:
        own = OWN_KEYS[key]
        return Explanation(key, _type(default), default, own.meaning, own.choices, PLUGIN)
    if key in settings:
        owner, meaning, choices = settings[key]
        return Explanation(key, _type(default), default, meaning, choices or valid, owner)
    if key in names and key not in STOCK_KEYS:
        role = next(role for role in ROLES if role.selector == key)
        return Explanation(key, _type(default), default, f"Name of the {role.name}.", valid, PLUGIN)
    if key in STOCK_KEYS:
        stock = STOCK_KEYS[key]
        valid = valid or stock.choices
        return Explanation(key, _type(default), default, stock.meaning, valid, DETECTRON2)
    meaning = HAS_NO_EFFECT if key.startswith(NO_EFFECT) else UNKNOWN
    return Explanation(key, _type(default), default, meaning, valid, DETECTRON2)


def _type(default: Any) -> str:
    if default is None:
        return "any"
    if isinstance(default, list | tuple) and len({type(item) for item in default}) == 1:
        return f"list of {type(default[0]).__name__}"
    return "list" if isinstance(default, tuple) else type(default).__name__


def _component_keys() -> dict[str, tuple[str, str, tuple[str, ...]]]:
    """Component, meaning and choices of each key that a component registered."""
    found: dict[str, tuple[str, str, tuple[str, ...]]] = {}
    for role in ROLES:
        for name, component in role.schema.components.items():
            meanings = described_settings(role.get(name))
            for key in component.defaults:
                meaning = meanings.get(key.lower(), "")
                meaning = ROLES_AND_CODE.sub(r"`\1`", meaning)
                meaning = meaning[:1].upper() + meaning[1:]
                choices = tuple(component.choices.get(key, ()))
                found[f"{role.node}.{component.node}.{key}"] = (name, meaning, choices)
    return found


def find_keys_like(text: str, explained: list[Explanation]) -> list[Explanation]:
    """The keys that a user asks for: a key, a group of keys, a key's last part, or a pattern.

    Raises:
        UnknownNameError: there is none; names those that may be meant.
    """
    if WILDCARDS & set(text):
        found = [x for x in explained if fnmatchcase(x.key, text)]
    else:
        found = [x for x in explained if x.key == text]
        found = found or [x for x in explained if x.key.startswith(f"{text}.")]
        found = found or _by_part(explained, lambda key: key.endswith(f".{text}"))
        found = found or _by_part(explained, lambda key: f".{text}." in key)
    if found:
        return found
    raise UnknownNameError(f"{text}: there is no such config key.{_near(text, explained)}")


def _by_part(explained: list[Explanation], fits: Callable[[str], bool]) -> list[Explanation]:
    """The keys of which a part fits, those without effect only if there are no others."""
    found = [x for x in explained if fits(x.key)]
    return [x for x in found if x.has_effect] or found


def _near(text: str, explained: list[Explanation]) -> str:
    """A hint at keys of nearly this name, else of nearly this last part."""
    keys = {x.key.upper(): x.key for x in explained}
    near = difflib.get_close_matches(text.upper(), keys, n=3, cutoff=0.8)
    if not near:
        by_last: dict[str, list[str]] = {}
        for key in keys:
            by_last.setdefault(key.rpartition(".")[2], []).append(key)
        last = text.upper().rpartition(".")[2]
        close = difflib.get_close_matches(last, by_last, n=3, cutoff=0.7)
        near = [key for name in close for key in by_last[name]][:3]
    if not near:
        return " `retina config` lists all keys."
    return f" Did you mean {' or '.join(keys[key] for key in near)}?"
