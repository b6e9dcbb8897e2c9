"""The hooks of a training: Detectron2's own, some of them with more sense, and ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from retina_plugin.runs.run import LOG_PERIOD, Run

REPLACED = (hooks.PeriodicCheckpointer, hooks.EvalHook, hooks.PeriodicWriter)


@dataclass(frozen=True, kw_only=True)
class HookSettings:
    """What the hooks are asked for.

    Attributes:
        folder: ``OUTPUT_DIR``.
        eval_period, checkpoint_period, log_period: steps.
        images_per_step: of all workers.
        keep_checkpoints: see :class:`KeptCheckpoints`.
        best: see :class:`BestModel`; None for no such file.
        stopping: see :class:`EarlyStopping`; None never to stop.
        patience, min_delta: of the latter.
        log_gradient_norm: see :class:`GradientNorm`.
        class_names: of the classes.
    """

    folder: Path
    eval_period: int
    checkpoint_period: int
    images_per_step: int
    log_period: int = LOG_PERIOD
    keep_checkpoints: int = 0
    best: TrackedMetric | None = None
    stopping: TrackedMetric | None = None
    patience: int = 0
    min_delta: float = 0.0
    log_gradient_norm: bool = True
    class_names: Sequence[str] = ()

    @classmethod
    def of(cls, run: Run, *, checks_metrics: bool = True) -> HookSettings:
        """From a run; its data sets are registered.

        Args:
            run: its config may or may not have seen ``add_retina_config``.
            checks_metrics: refuse metrics that the plugin's evaluators do not give.

        Raises:
            UnknownNameError: an unknown metric or mode.
            ValueError: early stopping without evaluations.
        """
        cfg = run.settings
        test, sets = cfg.TEST, cfg.DATASETS.TEST
        stopping = test.get("EARLY_STOPPING") or {}
        best_metric, stopping_metric = metrics_of(
            test.get("BEST") or {}, stopping, sets, test.EVAL_PERIOD
        )
        if checks_metrics and run.evaluates_by_type:
            average = cfg.SOLVER.get("WEIGHT_AVERAGE") or {}
            for metric in filter(None, (best_metric, stopping_metric)):
                check_metric(
                    metric,
                    sets,
                    validation_loss=test.get("VALIDATION_LOSS", True),
                    raw=bool(average.get("DECAY", 0) and average.get("EVALUATE_BOTH", False)),
                )
        train = cfg.DATASETS.TRAIN
        return cls(
            folder=Path(cfg.OUTPUT_DIR),
            eval_period=test.EVAL_PERIOD,
            checkpoint_period=cfg.SOLVER.CHECKPOINT_PERIOD,
            images_per_step=cfg.SOLVER.IMS_PER_BATCH,
            log_period=run.log_period,
            keep_checkpoints=cfg.SOLVER.get("KEEP_CHECKPOINTS", 0),
            best=best_metric,
            stopping=stopping_metric,
            patience=stopping.get("PATIENCE", 0),
            min_delta=stopping.get("MIN_DELTA", 0.0),
            log_gradient_norm=cfg.SOLVER.get("LOG_GRAD_NORM", True),
            class_names=MetadataCatalog.get(train[0]).get("thing_classes", ()) if train else (),
        )


def metrics_of(
    best: Mapping[str, Any],
    stopping: Mapping[str, Any],
    test_sets: Sequence[str],
    eval_period: int,
) -> tuple[TrackedMetric | None, TrackedMetric | None]:
    """What decides on the best model, and on the end; None where nothing does.

    Args:
        best: ``TEST.BEST``.
        stopping: ``TEST.EARLY_STOPPING``; its ``METRIC`` ``auto`` is that of ``best``.
        test_sets: names.
        eval_period: steps.

    Raises:
        UnknownNameError: an unknown mode.
        ValueError: early stopping without evaluations.
    """
    name, mode = best.get("METRIC", "auto"), best.get("MODE", "auto")
    best_metric = tracked_metric(name, mode, test_sets=test_sets, key="TEST.BEST")
    if not stopping.get("PATIENCE", 0):
        return best_metric, None
    if stopping.get("METRIC", "auto") != "auto":
        name, mode = stopping["METRIC"], stopping.get("MODE", "auto")
    elif name in ("", "auto"):
        name = "bbox/AP"
    metric = tracked_metric(name, mode, test_sets=test_sets, key=STOPPING)
    if metric is None or not eval_period > 0:
        raise ValueError(
            f"{STOPPING}.PATIENCE {stopping['PATIENCE']} counts evaluations, but there are none "
            "while training: set TEST.EVAL_PERIOD to some steps, and name DATASETS.TEST and "
            f"{STOPPING}.METRIC"
        )
    return best_metric, metric


def training_hooks(
    stock: Sequence[HookBase | None],
    settings: HookSettings,
    *,
    step: TrainingStep,
    checkpointer: RetinaCheckpointer,
    evaluate: Callable[[], dict[str, Any]],
    after_evaluation: Sequence[HookBase] = (),
) -> list[HookBase]:
    """The hooks in the order they run; what writes is on the first worker alone.

    Args:
        stock: Detectron2's; of its checkpointer, evaluation and writer ours take the places.
        settings: of the config.
        step: the training step, which gets a hook of its own.
        checkpointer: of the training.
        evaluate: returns an evaluation's results.
        after_evaluation: further hooks whose results are to be written.
    """
    gradient_norm = GradientNorm() if settings.log_gradient_norm else None
    writers = [hook._writers for hook in stock if isinstance(hook, hooks.PeriodicWriter)]
    before: list[HookBase] = [x for x in stock if x is not None and not isinstance(x, REPLACED)]
    after: list[HookBase] = []
    if comm.is_main_process():
        if gradient_norm is not None:
            step.register_hooks([gradient_norm])
        statistics = TrainingStatistics(
            step.model,
            step.optimizer,
            images_per_step=settings.images_per_step,
            period=settings.log_period,
            class_names=settings.class_names,
            gradient_norm=gradient_norm,
        )
        kept = KeptCheckpoints(
            checkpointer, settings.checkpoint_period, keep=settings.keep_checkpoints
        )
        before += [statistics, kept]
        if settings.best is not None:
            before.append(BestModel(checkpointer, settings.best))
        after += [PromptWriter(x, settings.log_period) for x in writers]
    if settings.stopping is not None:
        after.append(
            EarlyStopping(
                checkpointer,
                settings.stopping,
                patience=settings.patience,
                min_delta=settings.min_delta,
                metrics_json=settings.folder / METRICS,
            )
        )
    followers = [hook for hook in (*before, *after) if hasattr(hook, "after_evaluation")]
    # Should the evaluation fail, there is a checkpoint; what it finds is written
    return [
        *before,
        Evaluation(settings.eval_period, evaluate, followers),
        *after_evaluation,
        *after,
    ]
