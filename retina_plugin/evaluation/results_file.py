"""``results.json``: the numbers of an evaluation, whichever evaluator gave them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retina_plugin.data.coco_json import write_json

RESULTS = "results.json"
Results = dict[str, dict[str, float]]  # task, such as "bbox" -> metric -> value


def write_results(folder: Path, results: Mapping[str, Any]) -> None:
    """Write the numbers of one data set into ``folder``, which is made; NaN becomes ``null``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RESULTS, for_json(results))


def for_json(results: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """The numbers of each task; an undefined one is None."""
    return {task: _numbers(x) for task, x in results.items() if isinstance(x, Mapping)}


def read_results(folder: Path) -> Results:
    """The numbers of one data set, undefined ones as NaN; {} where the file cannot be used."""
    try:
        content = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
        return {
            str(task): {str(k): math.nan if x is None else float(x) for k, x in found.items()}
            for task, found in content.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _numbers(found: Mapping[str, Any]) -> dict[str, float | None]:
    plain = {str(k): float(x) for k, x in found.items() if isinstance(x, int | float)}
    return {name: value if math.isfinite(value) else None for name, value in plain.items()}
