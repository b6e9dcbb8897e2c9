"""A config key: its default and what it means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Key:
    """A key of the plugin.

    Attributes:
        default: its value where neither file nor override set it.
        meaning: a noun phrase or sentences, with units.
        choices: the values that it, or each item of its list, may have; empty if there are others.
    """

    default: Any
    meaning: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class StockKey:
    """A key of Detectron2 that has an effect on a RetinaNet.

    Attributes:
        meaning: as of :class:`Key`.
        choices: as of :class:`Key`.
    """

    meaning: str
    choices: tuple[str, ...] = ()
