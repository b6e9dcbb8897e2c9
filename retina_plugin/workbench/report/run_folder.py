"""What a run left in its OUTPUT_DIR, as far as it is there."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from retina_plugin.data.coco_places import as_tuple
from retina_plugin.evaluation.curves import read_metrics
from retina_plugin.evaluation.results_file import Results
from retina_plugin.workbench.report.other_results import find_results

CONFIG, METRICS, LOG = "config.yaml", "metrics.json", "log.txt"
ENVIRONMENT = "environment.json"
DETECTIONS = "coco_instances_results.json"  # Detectron2's COCOEvaluator writes it
TOTAL_TIME = re.compile(r"Total training time: (?P<all>\S+(?: days?, \S+)?) \(")

Series = dict[str, list[tuple[int, float]]]


@dataclass(frozen=True)
class RunFolder:
    """A run, read from its folder.

    Attributes:
        path: the folder.
        config: all keys, nested; empty without ``config.yaml``.
        metrics: ``metric -> [(step, value), ...]``; empty without ``metrics.json``.
        environment: content of ``environment.json``, see ``engine/run_folder.py``; empty where it
            is not there.
        detections: data set -> its file of detections in COCO's result format.
        results: data set without such a file -> its numbers, as its evaluator gave them.
        finished: when the run wrote its last numbers.
        duration: of the training, as the log says it; "" if it does not.
        notes: what is missing or cannot be read, for people to read.
    """

    path: Path
    config: dict[str, Any]
    metrics: Series
    environment: dict[str, Any]
    detections: dict[str, Path]
    results: dict[str, Results]
    finished: datetime | None
    duration: str
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @property
    def steps(self) -> int | None:
        """Steps that were trained, as far as the metrics tell; None where they do not."""
        points = self.metrics.get("total_loss") or self.metrics.get("lr")
        return points[-1][0] + 1 if points else None


def read_run(path: Path) -> RunFolder:
    """Read the folder of a run.

    Raises:
        ValueError: it is no folder, or holds nothing that a run writes.
    """
    if not path.is_dir():
        raise ValueError(f"RUN: {path} is no folder; give the OUTPUT_DIR of a training")
    notes: list[str] = []
    config = _read(path / CONFIG, yaml.safe_load, notes, "the settings are unknown") or {}
    metrics = _read_metrics(path / METRICS, notes)
    detections = {file.parent.name: file for file in sorted(path.glob(f"inference/*/{DETECTIONS}"))}
    tested = as_tuple((config.get("DATASETS") or {}).get("TEST"))
    results = find_results(path, metrics, tested)
    results = {name: x for name, x in results.items() if name not in detections}
    if not (config or metrics or detections or results):
        raise ValueError(
            f"RUN: {path} has no {CONFIG}, {METRICS} or inference/*/{DETECTIONS}: "
            "give the OUTPUT_DIR of a training"
        )
    if not (detections or results):
        notes.append(
            f"inference/*/{DETECTIONS} is not there: the run was not evaluated on a data set in "
            "COCO's format; train_net.py --eval-only does it"
        )
    return RunFolder(
        path=path,
        config=config,
        metrics=metrics,
        environment=_environment(path),
        detections=detections,
        results=results,
        finished=_finished([path / METRICS, *detections.values()]),
        duration=_duration(path / LOG),
        notes=tuple(notes),
    )


def _read(file: Path, parse: Any, notes: list[str], without: str) -> dict[str, Any] | None:
    try:
        content = parse(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        notes.append(f"{file.name} is not there: {without}")
        return None
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        notes.append(f"{file.name} cannot be read ({reason}): {without}")
        return None
    if isinstance(content, dict):
        return content
    notes.append(f"{file.name} holds no keys: {without}")
    return None


def _read_metrics(file: Path, notes: list[str]) -> Series:
    without = "there are no training curves"
    try:
        return read_metrics(file)
    except FileNotFoundError:
        notes.append(f"{file.name} is not there: {without}")
    except (OSError, ValueError) as error:
        notes.append(f"{error}: {without}")
    return {}


def _environment(path: Path) -> dict[str, Any]:
    """As the run wrote it; a missing or odd file is no reason to have no report."""
    return _read(path / ENVIRONMENT, json.loads, [], "") or {}


def _finished(files: list[Path]) -> datetime | None:
    times = [file.stat().st_mtime for file in files if file.is_file()]
    return datetime.fromtimestamp(max(times)).astimezone() if times else None


def _duration(log: Path) -> str:
    """Of the last training that the log tells of: Detectron2 says it at the end."""
    if not log.is_file():
        return ""
    found = TOTAL_TIME.findall(log.read_text(encoding="utf-8", errors="replace"))
    return found[-1] if found else ""
