"""Build the training hooks: Detectron2's hooks, partly replaced, and the plugin's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import hooks
from detectron2.engine.train_loop import HookBase
from detectron2.utils import comm

from retina_plugin.checkpoint.checkpointer import RetinaCheckpointer
from retina_plugin.engine.hooks.best_model import BestModel
from retina_plugin.engine.hooks.early_stopping import KEY as STOPPING
from retina_plugin.engine.hooks.early_stopping import EarlyStopping
from retina_plugin.engine.hooks.evaluation import Evaluation
from retina_plugin.engine.hooks.gradient_norm import GradientNorm
from retina_plugin.engine.hooks.kept_checkpoints import KeptCheckpoints
from retina_plugin.engine.hooks.prompt_writer import PromptWriter
from retina_plugin.engine.hooks.training_statistics import TrainingStatistics
from retina_plugin.engine.step import TrainingStep
from retina_plugin.engine.tracked_metric import TrackedMetric, check_metric, tracked_metric
from retina_plugin.engine.writers.build import METRICS
from retina_plugin.runs.run import Run

REPLACED = (hooks.PeriodicCheckpointer, hooks.EvalHook, hooks.PeriodicWriter)


def training_hooks(
    stock: Sequence[HookBase | None],
    run: Run,
    *,
    step: TrainingStep,
    checkpointer: RetinaCheckpointer,
    evaluate: Callable[[], dict[str, Any]],
    after_evaluation: Sequence[HookBase] = (),
    checks_metrics: bool = True,
) -> list[HookBase]:
    """Return the hooks in execution order; only the first worker has hooks that write.

    Args:
        stock: Detectron2's hooks; its checkpointer, evaluation and writer hooks are replaced.
        run: run with registered data sets; its config may lack ``add_retina_config``'s keys.
        step: the training step, on which a hook is registered.
        checkpointer: checkpointer of the training.
        evaluate: function that returns the evaluation results.
        after_evaluation: further hooks whose results are written.
        checks_metrics: whether to reject metrics that the plugin's evaluators do not compute.

    Raises:
        UnknownNameError: if the metric or mode is unknown.
        ValueError: if early stopping is enabled without evaluations.
    """
    cfg = run.settings
    solver, stopping = cfg.SOLVER, cfg.TEST.get("EARLY_STOPPING") or {}
    best_metric, stopping_metric = _metrics_of(cfg, checks_metrics and run.evaluates_by_type)
    writers = [hook._writers for hook in stock if isinstance(hook, hooks.PeriodicWriter)]
    before: list[HookBase] = [x for x in stock if x is not None and not isinstance(x, REPLACED)]
    after: list[HookBase] = []
    if comm.is_main_process():
        gradient_norm = GradientNorm() if solver.get("LOG_GRAD_NORM", True) else None
        if gradient_norm is not None:
            step.register_hooks([gradient_norm])
        train = cfg.DATASETS.TRAIN
        statistics = TrainingStatistics(
            step.model,
            step.optimizer,
            images_per_step=run.images_per_step,
            period=run.log_period,
            class_names=MetadataCatalog.get(train[0]).get("thing_classes", ()) if train else (),
            gradient_norm=gradient_norm,
        )
        keep = solver.get("KEEP_CHECKPOINTS", 0)
        before += [statistics, KeptCheckpoints(checkpointer, solver.CHECKPOINT_PERIOD, keep=keep)]
        if best_metric is not None:
            before.append(BestModel(checkpointer, best_metric))
        after += [PromptWriter(x, run.log_period) for x in writers]
    if stopping_metric is not None:
        after.append(
            EarlyStopping(
                checkpointer,
                stopping_metric,
                patience=stopping["PATIENCE"],
                min_delta=stopping.get("MIN_DELTA", 0.0),
                metrics_json=Path(cfg.OUTPUT_DIR) / METRICS,
            )
        )
    followers = [hook for hook in (*before, *after) if hasattr(hook, "after_evaluation")]
    # Checkpoint before the evaluation, in case it fails; write its results afterwards
    return [
        *before,
        Evaluation(cfg.TEST.EVAL_PERIOD, evaluate, followers),
        *after_evaluation,
        *after,
    ]


def _metrics_of(cfg: CfgNode, checks: bool) -> tuple[TrackedMetric | None, TrackedMetric | None]:
    """Return the metrics of the best model and of early stopping, or None where not configured."""
    test, sets = cfg.TEST, cfg.DATASETS.TEST
    best, stopping = test.get("BEST") or {}, test.get("EARLY_STOPPING") or {}
    name, mode = best.get("METRIC", "auto"), best.get("MODE", "auto")
    best_metric = tracked_metric(name, mode, test_sets=sets, key="TEST.BEST")
    stopping_metric = None
    if stopping.get("PATIENCE", 0):
        if stopping.get("METRIC", "auto") != "auto":
            name, mode = stopping["METRIC"], stopping.get("MODE", "auto")
        elif name in ("", "auto"):
            name = "bbox/AP"
        stopping_metric = tracked_metric(name, mode, test_sets=sets, key=STOPPING)
        if stopping_metric is None or not test.EVAL_PERIOD > 0:
            raise ValueError(
                f"{STOPPING}.PATIENCE {stopping['PATIENCE']} counts evaluations, but there are "
                "none while training: set TEST.EVAL_PERIOD to some steps, and name DATASETS.TEST "
                f"and {STOPPING}.METRIC"
            )
    average = cfg.SOLVER.get("WEIGHT_AVERAGE") or {}
    for metric in filter(None, (best_metric, stopping_metric)) if checks else ():
        check_metric(
            metric,
            sets,
            validation_loss=test.get("VALIDATION_LOSS", True),
            raw=bool(average.get("DECAY", 0) and average.get("EVALUATE_BOTH", False)),
        )
    return best_metric, stopping_metric
