"""Early stopping: end a training whose metric no longer improves."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.checkpoint import Checkpointer
from detectron2.engine.train_loop import HookBase
from detectron2.utils import comm

from retina_plugin.engine.tracked_metric import TrackedMetric
from retina_plugin.evaluation.curves import read_metrics

KEY = "TEST.EARLY_STOPPING"
FINAL = "model_final"  # as Detectron2 names it

logger = logging.getLogger(__name__)


class TrainingStopped(BaseException):
    """Exception that ends the training loop regularly.

    Not a subclass of ``Exception``, which Detectron2's loop logs as a crash.
    """


class EarlyStopping(HookBase):
    """End the training after ``patience`` evaluations without improvement.

    The last step's checkpoint is ``model_final.pth``; the last evaluation is the final result.
    Earlier evaluations are read from ``metrics.json``, so that a resumed training continues
    counting; a stopped training ends immediately unless the patience was increased. All workers
    stop at the same step, as decided by the first. Is notified by :class:`~.evaluation.Evaluation`;
    place it last, after the writers.

    Args:
        checkpointer: checkpointer of the training.
        metric: metric that has to improve.
        patience: number of evaluations, 1 or more.
        min_delta: minimum difference from the best value that counts as an improvement.
        metrics_json: path of the ``metrics.json`` that Detectron2 writes.

    Raises:
        ValueError: if a number is out of range.
    """

    def __init__(
        self,
        checkpointer: Checkpointer,
        metric: TrackedMetric,
        *,
        patience: int,
        min_delta: float,
        metrics_json: Path,
    ) -> None:
        if patience < 1:
            raise ValueError(f"{KEY}.PATIENCE must be 1 or more evaluations, got {patience}")
        if not min_delta >= 0:
            raise ValueError(f"{KEY}.MIN_DELTA must be 0 or more, got {min_delta}")
        self._checkpointer = checkpointer
        self._metric = metric
        self._patience = patience
        self._min_delta = min_delta
        self._metrics_json = metrics_json
        self._values: list[float] = []
        self._stops = False

    def before_train(self) -> None:
        """Read the earlier evaluations if the training is resumed."""
        begin = self.trainer.start_iter
        if begin > 0 and comm.is_main_process() and self._metrics_json.is_file():
            series = read_metrics(self._metrics_json).get(self._metric.name, [])
            self._values = [value for iteration, value in series if iteration < begin]
        self._decide()
        if self._stops and begin < self.trainer.max_iter:
            logger.info(
                f"{self._reason()}. It had been stopped; to train on, set {KEY}.PATIENCE larger "
                "than that, or to 0"
            )
            self._stop()

    def after_evaluation(self, metrics: Mapping[str, float]) -> None:
        """See :class:`~.evaluation.FollowsEvaluation`.

        Raises:
            UnknownNameError: if the metric is not among the results; lists the valid names.
        """
        if metrics:
            self._values.append(self._metric.value_in(metrics))
        self._decide()

    def after_step(self) -> None:
        """Stop the training if this was decided."""
        if not self._stops or self.trainer.iter + 1 >= self.trainer.max_iter:
            return
        steps = self.trainer.iter + 1
        logger.info(f"{self._reason()}: the training stops after {steps} steps")
        self._checkpointer.save(FINAL, iteration=self.trainer.iter)
        self.trainer.iter = steps  # as after a last step
        self._stop()

    def _decide(self) -> None:
        waited = evaluations_without_gain(self._values, self._metric, self._min_delta)
        self._stops = comm.all_gather(waited >= self._patience)[0]

    def _stop(self) -> None:
        self.trainer.max_iter = self.trainer.iter
        raise TrainingStopped

    def _reason(self) -> str:
        waited = evaluations_without_gain(self._values, self._metric, self._min_delta)
        known = [x for x in self._values if not math.isnan(x)]
        best = max(known, key=lambda x: x * self._metric.sign, default=math.nan)
        margin = f" by more than {self._min_delta:g}" if self._min_delta else ""
        return (
            f"Early stopping: {self._metric.name} has not become better{margin} in the last "
            f"{waited} evaluations; the best was {best:.5g}"
        )


def evaluations_without_gain(
    values: Sequence[float], metric: TrackedMetric, min_delta: float
) -> int:
    """Return the number of values since the last improvement by more than ``min_delta``."""
    best, waited = None, 0
    for value in values:
        if metric.improves(value, best, by=min_delta if best is not None else 0.0):
            best, waited = value, 0
        else:
            waited += 1
    return waited


def until_stopped(train: Callable[[], Any]) -> bool:
    """Run a training loop; return whether :class:`EarlyStopping` ended it."""
    try:
        train()
    except TrainingStopped:
        return True
    return False
