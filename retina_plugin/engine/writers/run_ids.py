"""Run ids of logging services per ``OUTPUT_DIR``, so that a resumed training continues its run."""

from __future__ import annotations

import json
from pathlib import Path

FILE = "loggers.json"


def read_run_id(folder: str | Path, service: str) -> str | None:
    """Return the id saved by :func:`keep_run_id`, or None."""
    return _read(Path(folder) / FILE).get(service)


def keep_run_id(folder: str | Path, service: str, run_id: str) -> None:
    """Save the run id to ``loggers.json``, beside those of other services."""
    path = Path(folder) / FILE
    path.write_text(json.dumps({**_read(path), service: run_id}, indent=2) + "\n")


def _read(path: Path) -> dict[str, str]:
    return json.loads(path.read_text()) if path.is_file() else {}
