"""The yaml config under which converted weights mean what they meant."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from retina_plugin.weights.conversion import Conversion

BASES = Path(__file__).resolve().parents[2] / "configs" / "_base_"


def config_text(conversion: Conversion, *, weights: Path, folder: Path) -> str:
    """A config for ``train_net.py``: the bases, and the settings that the weights need.

    Args:
        conversion: for our detector.
        weights: the converted file.
        folder: where the config will be, to name the bases from.

    Raises:
        ValueError: the configs are not there, as where the package was installed without them.
    """
    if not BASES.is_dir():
        raise ValueError(
            f"a config builds on those in {BASES}, which is not there: run it from a checkout of "
            "retina_plugin"
        )
    bases = [
        Path(os.path.relpath(BASES / name, folder.resolve())).as_posix()
        for name in conversion.bases
    ]
    settings = {**conversion.settings, "MODEL.WEIGHTS": str(weights.resolve())}
    values = {"_BASE_": bases, **_nested(settings), "VERSION": 2}
    head = [
        f"{conversion.kind}, by retina convert.",
        "command:  python train_net.py --config-file THIS_FILE --eval-only",
        *conversion.notes,
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
