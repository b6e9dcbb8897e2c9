"""What writers for logging services have in common."""

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
    """Sends scalars and pictures to a service, and at the end the run's small files.

    The run begins with the first write, and goes on when a training is resumed. Put it before
    TensorBoard's writer, which takes the pictures out of the storage.

    Args:
        folder: ``OUTPUT_DIR``, by whose name the run is called.
        config: the training's, nested.

    Raises:
        ImportError: the service's package is not installed.
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
        # in order: a service may take nothing for a step before the last one
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
        """Begin the run, or go on with that of ``run_id``; returns its id."""

    @abstractmethod
    def _write_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Names and values of a step."""

    @abstractmethod
    def _write_picture(self, name: str, picture: np.ndarray, step: int) -> None:
        """``picture``: ``(H, W, 3)`` uint8 RGB."""

    @abstractmethod
    def _write_file(self, path: Path) -> None:
        """Keep a file of the run."""

    @abstractmethod
    def _end(self) -> None:
        """End the run."""


def import_service(name: str) -> ModuleType:
    """The package of a service.

    Raises:
        ImportError: it is not installed; says how to get it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"LOGGERS has {name}, whose package is not installed ({error}); get it with: "
            f'pip install "retina-plugin[{name}]"'
        ) from error
