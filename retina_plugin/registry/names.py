"""Errors for names that do not exist, with the names that may have been meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from fvcore.common.registry import Registry

SHORTEST_BEGINNING = 3  # letters


class UnknownNameError(KeyError):
    """A config names a component or a key that does not exist; the message lists the valid ones."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would print the repr, newlines escaped


def near_misses(name: str, valid: Iterable[str], *, cutoff: float = 0.6) -> list[str]:
    """Up to three of the ``valid`` names that resemble ``name`` or begin with it.

    Upper and lower case are the same.

    Args:
        cutoff: the least similarity, from 0 to 1, as ``difflib`` computes it.
    """
    name, by_lower_case = name.lower(), {other.lower(): other for other in sorted(valid)}
    near = difflib.get_close_matches(name, by_lower_case, n=3, cutoff=cutoff)
    if len(name) >= SHORTEST_BEGINNING:
        near += [other for other in by_lower_case if other.startswith(name) and other not in near]
    return [by_lower_case[other] for other in near[:3]]


def unknown_name(what: str, name: object, valid: Iterable[str]) -> UnknownNameError:
    """The error for an unknown ``name``: the nearest valid ones first, then all of them."""
    name, valid = str(name), sorted(valid)
    near = near_misses(name, valid)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    listed = ", ".join(valid) or "(none)"
    return UnknownNameError(f"{what}: '{name}' is unknown.{hint} Valid: {listed}.")


def require_registered(registry: Registry, name: str, key: str) -> None:
    """Raise an error that lists what ``registry`` holds unless it holds ``name`` (from ``key``)."""
    if name not in registry:
        raise unknown_name(key, name, (known for known, _ in registry))
