"""Base class of writers for logging services."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from detectron2.utils.events import EventWriter, get_event_storage

from retina_plugin.engine.writers.new_scalars import NewScalars
from retina_plugin.engine.writers.run_ids import keep_run_id, read_run_id

RESULTS = ("config.yaml", "environment.json", "curves.png", "metrics.json")


class ServiceWriter(EventWriter, ABC):
    """Send scalars and pictures to a service, and at the end the run's small files.

    The run starts at the first write, and continues when a training is resumed. Place it before
    TensorBoard's writer, which removes the pictures from the storage.

    Args:
        folder: ``OUTPUT_DIR``, whose name is the name of the run.
        config: nested training config.

    Raises:
        ImportError: if the package of the service is not installed.
    """

    SERVICE = ""  # name, package and extra

    def __init__(self, folder: str | Path, config: Mapping[str, Any]) -> None:
        self._package = import_service(self.SERVICE)
        self._folder = Path(folder)
        self._config = config
        self._scalars = NewScalars()
        self._has_begun = False

    def write(self) -> None:
        """See ``EventWriter``."""
        storage = get_event_storage()
        if not self._has_begun:
            self._has_begun = True
            run_id = self._begin(read_run_id(self._folder, self.SERVICE))
            keep_run_id(self._folder, self.SERVICE, run_id)
        scalars = self._scalars.of(storage)
        pictures = storage._vis_data  # as TensorboardXWriter reads it
        # in order: a service may reject earlier steps than the last one
        for step in sorted({*scalars, *(step for _, _, step in pictures)}):
            if step in scalars:
                self._write_scalars(scalars[step], step)
            for name, picture, at in pictures:
                if at == step:
                    self._write_picture(name, np.asarray(picture).transpose(1, 2, 0), step)

    def close(self) -> None:
        """See ``EventWriter``."""
        if not self._has_begun:
            return
        for path in (self._folder / name for name in RESULTS):
            if path.is_file():
                self._write_file(path)
        self._end()

    @abstractmethod
    def _begin(self, run_id: str | None) -> str:
        """Start a run, or continue that of ``run_id``; return its id."""

    @abstractmethod
    def _write_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Write the scalars of a step, by name."""

    @abstractmethod
    def _write_picture(self, name: str, picture: np.ndarray, step: int) -> None:
        """Write a picture, ``(H, W, 3)`` uint8 RGB."""

    @abstractmethod
    def _write_file(self, path: Path) -> None:
        """Upload a file of the run."""

    @abstractmethod
    def _end(self) -> None:
        """End the run."""


def import_service(name: str) -> ModuleType:
    """Import the package of a service.

    Raises:
        ImportError: if it is not installed, with the command to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"LOGGERS has {name}, whose package is not installed ({error}); get it with: "
            f'pip install "retina-plugin[{name}]"'
        ) from error
