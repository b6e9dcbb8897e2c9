"""Dataclasses of plain numbers, texts, lists and dicts, as json and back."""

from __future__ import annotations

from dataclasses import MISSING, asdict, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


def to_json(value: Any) -> dict[str, Any]:
    """A dataclass as dicts and lists."""
    return asdict(value)


def from_json(kind: type[T], content: Any) -> T:
    """What :func:`to_json` gave, as the dataclass ``kind``.

    Raises:
        ValueError: a key is missing, unknown or of another type; names it.
    """
    return _read(kind, content, kind.__name__)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _read(kind: Any, value: Any, where: str) -> Any:
    origin = get_origin(kind)
    if is_dataclass(kind):
        return _read_dataclass(kind, value, where)
    if origin is UnionType:
        return _read_union(kind, value, where)
    if origin is list and isinstance(value, list):
        (of,) = get_args(kind)
        return [_read(of, x, f"{where}[{i}]") for i, x in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        _, of = get_args(kind)
        return {key: _read(of, x, f"{where}.{key}") for key, x in value.items()}
    if kind is float and type(value) is int:
        return float(value)
    if origin is None and type(value) is kind:
        return value
    raise ValueError(f"{where}: expected {kind}, got {value!r:.60}")


def _read_union(kind: Any, value: Any, where: str) -> Any:
    options = get_args(kind)
    if value is None and NoneType in options:
        return None
    if type(value) in options:
        return value
    others = [x for x in options if x is not NoneType]
    return _read(others[0], value, where)


def _read_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected a dict, got {value!r:.60}")
    parts = {x.name: x for x in fields(kind)}
    needed = {
        name for name, x in parts.items() if x.default is MISSING and x.default_factory is MISSING
    }
    wrong = sorted(set(value) - set(parts)), sorted(needed - set(value))
    if any(wrong):
        raise ValueError(f"{where}: unknown keys {wrong[0]}, missing keys {wrong[1]}")
    hints = _hints(kind)
    return kind(**{key: _read(hints[key], x, f"{where}.{key}") for key, x in value.items()})
