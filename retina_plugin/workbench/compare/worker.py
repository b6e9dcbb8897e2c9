"""One run, in a process of its own: ``python -m retina_plugin.workbench.compare.worker FOLDER``."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from retina_plugin.data.coco_json import write_json
from retina_plugin.engine.arguments import argument_parser
from retina_plugin.engine.peak_memory import peak_memory_bytes
from retina_plugin.engine.setup import setup
from retina_plugin.engine.trainer import RetinaTrainer
from retina_plugin.engine.user_errors import user_errors
from retina_plugin.evaluation.curves import read_metrics
from retina_plugin.workbench.compare.runs import Run
from retina_plugin.workbench.end_report import report_run
from retina_plugin.workbench.job import consult_doctor

TASK = "run.json"


def write_task(run: Run, extensions: tuple[str, ...]) -> None:
    """Tell the worker of ``run.folder`` what to do."""
    task = {**asdict(run), "extensions": extensions}
    paths = {"config_file": str(run.config_file), "folder": str(run.folder)}
    write_json(run.folder / TASK, {**task, **paths})


def train(folder: Path) -> None:
    """Train the task in ``folder``, from its last checkpoint if there is one; keep the result."""
    task = json.loads((folder / TASK).read_text(encoding="utf-8"))
    extensions = task.pop("extensions")
    run = Run(**{**task, "config_file": Path(task["config_file"]), "folder": folder})
    imports = [part for extension in extensions for part in ("--import", extension)]
    arguments = argument_parser().parse_args(
        ["--resume", "--config-file", str(run.config_file), *imports]
    )
    # evaluated once, at the end
    arguments.opts = [*run.overrides, f"OUTPUT_DIR={folder}", "TEST.EVAL_PERIOD=0"]
    with user_errors():
        trainer = RetinaTrainer(setup(arguments, consult_doctor))
        trainer.resume_or_load(resume=True)
        results = trainer.train()
        report_run(trainer.cfg)
    scores = scores_by_name(results, trainer.cfg.DATASETS.TEST)
    run.finish({"scores": scores, **_costs(folder, trainer.model)})


def scores_by_name(results: Mapping[str, Any], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """COCO's numbers on each of the test sets, out of what a training returns.

    With ``SOLVER.WEIGHT_AVERAGE.EVALUATE_BOTH`` those of the averaged weights.
    """
    if len(names) == 1:  # Detectron2 leaves the name out then
        results = {names[0]: results}
    return {name: dict(results[name]["bbox"]) for name in names}


def _costs(folder: Path, model: nn.Module) -> dict[str, Any]:
    times = [value for _, value in read_metrics(folder / "metrics.json").get("time", [])]
    return {
        "seconds_per_step": statistics.median(times) if times else None,
        "parameters": sum(x.numel() for x in model.parameters() if x.requires_grad),
        "peak_bytes": peak_memory_bytes(next(model.parameters()).device),
        "threads": torch.get_num_threads(),
        "device": str(next(model.parameters()).device),
    }


if __name__ == "__main__":
    train(Path(sys.argv[1]))
