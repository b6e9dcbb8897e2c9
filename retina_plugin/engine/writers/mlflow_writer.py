"""Writer for MLflow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from retina_plugin.engine.writers.service_writer import ServiceWriter

_FORBIDDEN = re.compile(r"[^\w./ -]")  # in MLflow names


class MlflowWriter(ServiceWriter):
    """Write an MLflow run, as set by ``MLFLOW_TRACKING_URI`` and ``MLFLOW_EXPERIMENT_NAME``.

    The config is logged as the artifact ``config.yaml``; the parameters are commonly tuned keys:
    see ``PARAMETERS``. Characters not allowed in MLflow names are replaced by ``_``.
    """

    SERVICE = "mlflow"
    PARAMETERS = (
        *("MODEL.META_ARCHITECTURE", "MODEL.BACKBONE.NAME", "MODEL.WEIGHTS", "SEED"),
        *("SOLVER.BASE_LR", "SOLVER.IMS_PER_BATCH", "SOLVER.MAX_ITER", "SOLVER.OPTIMIZER"),
        *("DATASETS.TRAIN", "DATASETS.TEST", "INPUT.MIN_SIZE_TRAIN", "INPUT.MIN_SIZE_TEST"),
    )

    def _begin(self, run_id: str | None) -> str:
        name = self._folder.resolve().name
        run = self._package.start_run(run_id=run_id, run_name=None if run_id else name)
        if run_id is None:
            found = {key: _value_at(self._config, key) for key in self.PARAMETERS}
            self._package.log_params({key: x for key, x in found.items() if x is not None})
        return run.info.run_id

    def _write_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        self._package.log_metrics({_allowed(name): x for name, x in scalars.items()}, step=step)

    def _write_picture(self, name: str, picture: np.ndarray, step: int) -> None:
        folder = _allowed(name).replace(" ", "_")
        self._package.log_image(picture, artifact_file=f"pictures/{folder}/{step:07d}.png")

    def _write_file(self, path: Path) -> None:
        self._package.log_artifact(str(path))

    def _end(self) -> None:
        self._package.end_run()


def _allowed(name: str) -> str:
    return _FORBIDDEN.sub("_", name)


def _value_at(config: Mapping, key: str) -> object:
    value: object = config
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value
