"""What the docstring of a component says of its settings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

SECTION = re.compile(r"^(Args|Settings):\s*$")
CLASS = re.compile(r":class:`(\w+)`")
ENTRY = re.compile(r"^ {4}(?P<names>\w+(?:, \w+)*): (?P<text>.*)$")


def described_settings(component: Callable[..., Any]) -> dict[str, str]:
    """The entries of the sections ``Args:`` and ``Settings:``, by name.

    A class has those of its bases as well, for the arguments that it hands on. A function, which
    reads its settings from the config, has those of the classes that its docstring names by
    ``:class:``, and its own in a section ``Settings:``.
    """
    found: dict[str, str] = {}
    if not isinstance(component, type):
        for name in CLASS.findall(component.__doc__ or ""):
            found |= described_settings(component.__globals__.get(name, object))
        return found | _entries(component.__doc__ or "")
    for base in component.__mro__[::-1]:
        for described in (base, vars(base).get("__init__")):
            found |= _entries(getattr(described, "__doc__", None) or "")
    return found


def _entries(docstring: str) -> dict[str, str]:
    entries: dict[str, str] = {}
    names: list[str] = []
    inside = False
    for line in inspect.cleandoc(docstring).splitlines():
        if line and not line.startswith(" "):
            inside, names = SECTION.match(line) is not None, []
        elif not inside:
            continue
        elif entry := ENTRY.match(line):
            names = entry["names"].split(", ")
            entries |= dict.fromkeys(names, entry["text"])
        elif line.strip():
            entries |= {name: f"{entries[name]} {line.strip()}" for name in names}
        else:
            names = []
    return entries
