"""The yaml config under which converted weights mean what they meant."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from retina_plugin.checkpoint.conversion import Conversion
from retina_plugin.config.names import BASES, OWN, SCHEME


def config_text(conversion: Conversion, *, weights: Path, path: Path) -> str:
    """A config for ``train_net.py``: the bases, and the settings that the weights need.

    Args:
        conversion: for our detector.
        weights: the converted file.
        path: where the config will be.
    """
    bases = [f"{OWN}{SCHEME}{BASES}/{name}" for name in conversion.bases]
    settings = {**conversion.settings, "MODEL.WEIGHTS": str(weights.resolve())}
    values = {"_BASE_": bases, **_nested(settings), "VERSION": 2}
    notes = [line for note in conversion.notes for line in textwrap.wrap(note, width=97)]
    head = [
        f"{conversion.kind}, by retina convert.",
        f"command:  python train_net.py --config-file {path} --eval-only",
        *notes,
    ]
    comment = "".join(f"# {line}\n" for line in head)
    return comment + yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=100)


def _nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as dicts within each other."""
    nested: dict[str, Any] = {}
    for key, value in settings.items():
        *groups, last = key.split(".")
        node = nested
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = value
    return nested
