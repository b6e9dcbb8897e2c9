"""Build the writers of a training: Detectron2's, and those of the services in ``LOGGERS``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.utils.events import EventWriter, JSONWriter, TensorboardXWriter

from retina_plugin.config.keys import check_choice
from retina_plugin.engine.writers.curves_writer import CurvesWriter
from retina_plugin.engine.writers.mlflow_writer import MlflowWriter
from retina_plugin.engine.writers.service_writer import ServiceWriter
from retina_plugin.engine.writers.short_printer import ShortPrinter
from retina_plugin.engine.writers.wandb_writer import WandbWriter

SERVICES: dict[str, type[ServiceWriter]] = {x.SERVICE: x for x in (WandbWriter, MlflowWriter)}
METRICS = "metrics.json"


def build_writers(
    folder: str | Path,
    max_iter: int,
    *,
    loggers: Sequence[str] = (),
    config: Mapping[str, Any] | None = None,
) -> list[EventWriter]:
    """Build Detectron2's ``default_writers``, ``curves.png``, and services before TensorBoard.

    Args:
        folder: ``OUTPUT_DIR``.
        max_iter: number of training steps.
        loggers: ``LOGGERS``.
        config: nested training config for the services.

    Raises:
        UnknownNameError: if a logger is unknown; lists the valid ones.
        ImportError: if the package of a service is not installed.
    """
    for name in loggers:
        check_choice("LOGGERS", name)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return [
        ShortPrinter(max_iter),
        JSONWriter(str(folder / METRICS)),
        CurvesWriter(folder / METRICS, folder / "curves.png"),
        *(SERVICES[name](folder, config or {}) for name in loggers),
        TensorboardXWriter(str(folder)),
    ]
