"""Writer for Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from retina_plugin.engine.writers.service_writer import ServiceWriter


class WandbWriter(ServiceWriter):
    """Write a W&B run; set project, entity and mode by its variables, ``WANDB_PROJECT`` etc.

    When a training is resumed, W&B drops the steps that it already has: those between the last
    checkpoint and the interruption.
    """

    SERVICE = "wandb"

    def _begin(self, run_id: str | None) -> str:
        self._run = self._package.init(
            dir=str(self._folder),
            name=self._folder.resolve().name,
            config=dict(self._config),
            id=run_id,
            resume="allow",
        )
        return self._run.id

    def _write_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        self._run.log(dict(scalars), step=step)

    def _write_picture(self, name: str, picture: np.ndarray, step: int) -> None:
        self._run.log({name: self._package.Image(picture)}, step=step)

    def _write_file(self, path: Path) -> None:
        self._run.save(str(path), base_path=str(self._folder), policy="now")

    def _end(self) -> None:
        self._run.finish()
