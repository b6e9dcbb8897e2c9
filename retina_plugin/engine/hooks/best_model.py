"""``model_best.pth``: the weights of the best evaluation so far."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.engine.train_loop import HookBase

from retina_plugin.checkpoint.checkpointer import RetinaCheckpointer
from retina_plugin.engine.tracked_metric import TrackedMetric

BEST = "model_best"
RECORD = "best"  # key in the checkpoint

logger = logging.getLogger(__name__)


class BestModel(HookBase):
    """Save the evaluated weights whenever the metric improves on the best value so far.

    The checkpoint stores the metric and its value, so that a resumed training continues from it;
    a checkpoint selected by another metric is overwritten at the first evaluation. Unlike
    Detectron2's ``BestCheckpointer``, it does not change ``last_checkpoint``, which is used to
    resume, and it saves only the weights. Is notified by :class:`~.evaluation.Evaluation`.

    Args:
        checkpointer: checkpointer of the training.
        metric: metric that selects the best weights.
    """

    def __init__(self, checkpointer: RetinaCheckpointer, metric: TrackedMetric) -> None:
        self._checkpointer = checkpointer
        self._metric = metric
        self._best: float | None = None
        self._path = Path(checkpointer.save_dir) / f"{BEST}.pth"

    def before_train(self) -> None:
        """Read the best value so far if the training is resumed."""
        if self.trainer.start_iter == 0 or not self._path.is_file():
            return
        record = read_best(self._path)
        same = record.get("metric") == self._metric.name and record.get("sign") == self._metric.sign
        if same:
            self._best = record["value"]
            logger.info(f"The best {self._metric.name} so far is {self._best:.5g}")
        else:
            logger.warning(
                f"{self._path} is the best by {record.get('metric', 'an unknown metric')}, now "
                f"{self._metric.key}.METRIC is {self._metric.name}: the next evaluation replaces it"
            )

    def after_evaluation(self, metrics: Mapping[str, float]) -> None:
        """See :class:`~.evaluation.FollowsEvaluation`.

        Raises:
            UnknownNameError: if the metric is not among the results; lists the valid names.
        """
        if not metrics:
            return
        value = self._metric.value_in(metrics)
        if not self._metric.improves(value, self._best):
            return
        before = "" if self._best is None else f", before {self._best:.5g}"
        iteration = self.trainer.storage.iter
        record = {
            "metric": self._metric.name,
            "sign": self._metric.sign,
            "value": value,
            "iteration": iteration,
        }
        self._checkpointer.save_weights(BEST, iteration=iteration, **{RECORD: record})
        self._best = value
        logger.info(f"{self._metric.name} {value:.5g} is the best yet{before}: saved {self._path}")


def read_best(path: Path) -> dict[str, Any]:
    """Read ``metric``, ``value``, ``iteration`` and ``sign`` (1: higher is better) of a file."""
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return content.get(RECORD, {})
