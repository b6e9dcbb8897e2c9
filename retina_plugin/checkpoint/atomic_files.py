"""Files that appear whole or not at all, however a training ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class AtomicFiles:
    """An ``iopath`` path manager that writes local files beside their place, then moves them there.

    Killed while it writes, a training leaves the older file as it was. All else is the manager's.

    Args:
        manager: such as Detectron2's ``PathManager``.
    """

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)

    @contextmanager
    def open(self, path: str, mode: str = "r", **options: Any) -> Iterator[Any]:
        """As the manager's, in a ``with`` statement."""
        if "w" not in mode or "://" in path:
            with self._manager.open(path, mode, **options) as file:
                yield file
            return
        partial = Path(f"{path}.partial")
        try:
            with self._manager.open(str(partial), mode, **options) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
