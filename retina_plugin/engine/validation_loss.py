"""Losses on the test sets, computed from the forward passes of the evaluation."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.logger import log_first_n
from torch import Tensor, nn

from retina_plugin.engine.tracked_metric import VALIDATION
from retina_plugin.modeling.batch_inputs import ground_truth_of
from retina_plugin.modeling.contracts import Predictions
from retina_plugin.modeling.data_parallel import inner_model
from retina_plugin.modeling.detector import FocalRetinaNet

TOTAL = "total_loss"


class LatestPredictions:
    """Context manager that collects the outputs of the detector's ``predict``.

    Args:
        detector: detector to observe, restored on exit.
    """

    def __init__(self, detector: FocalRetinaNet) -> None:
        self._detector = detector
        self._seen: list[Predictions] = []

    def __enter__(self) -> LatestPredictions:
        predict = self._detector.predict

        def seen(*args: Any, **options: Any) -> Predictions:
            predictions = predict(*args, **options)
            self._seen.append(predictions)
            return predictions

        vars(self._detector)["predict"] = seen
        return self

    def __exit__(self, *_: object) -> None:
        del vars(self._detector)["predict"]
        self._seen.clear()

    def take(self) -> list[Predictions]:
        """Return the predictions of all forward passes since the last call."""
        seen, self._seen = self._seen, []
        return seen


class ValidationLoss(DatasetEvaluator):
    """Compute ``{"validation": {"loss_cls", "loss_box_reg", ..., "total_loss"}}`` of a test set.

    The unnormalized losses are summed over all images of all workers and
    divided by the total number of positives (at least 1), like the training losses with a
    normalizer over the positives of a batch. An image without objects adds its background loss.
    The detector's state does not change: the normalizer is not called, and losses that count
    do so only in training.

    If a test set has no ground truth that matches the detector, no loss is computed, and the
    reason is logged.

    Args:
        latest: collector of the detector's predictions.
        detector: detector in evaluation mode.
        name: name of the test set.
    """

    def __init__(self, latest: LatestPredictions, detector: FocalRetinaNet, name: str) -> None:
        self._latest = latest
        self._detector = detector
        self._name = name
        self.reset()

    def reset(self) -> None:
        """Reset before the first image."""
        self._sums: dict[str, Tensor] = {}
        self._count: Tensor | None = None
        self._obstacle = ""

    @torch.no_grad()
    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Add the losses of a batch after its detection; see ``DatasetEvaluator``."""
        passes = self._latest.take()
        self._obstacle = self._obstacle or self._obstacle_of(inputs, passes)
        if self._obstacle:
            return
        try:
            losses = self._losses(passes[0], inputs)
        except KeyError as error:  # a field of the training ground truth
            self._obstacle = f"its losses need what test sets lack: {error.args[0]}"
            return
        for name, loss in losses.items():
            self._sums[name] = self._sums.get(name, 0) + loss.float()

    def _losses(self, predictions: Predictions, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        detector = self._detector
        truth = [ground_truth_of(x, detector.num_classes, detector.device) for x in inputs]
        targets = detector.assign(predictions, truth)
        return detector.losses_of(predictions, targets, self._add_positives)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Return the losses on the first worker, and nothing on others."""
        names = list(self._sums)
        values = [] if self._count is None else [self._count, *self._sums.values()]
        own = torch.stack(values).tolist() if values else []
        parts = comm.gather((names, own, self._obstacle))
        if not comm.is_main_process():
            return {}
        obstacles = [obstacle for _, _, obstacle in parts if obstacle]
        if obstacles:
            reason = f"No validation loss of {self._name}: {obstacles[0]}"
            log_first_n(logging.WARNING, reason, key="message", name=__name__)
            return {}
        positives, sums = 0.0, dict.fromkeys(next((x[0] for x in parts if x[0]), ()), 0.0)
        for part_names, numbers, _ in parts:
            positives += sum(numbers[:1])
            for name, value in zip(part_names, numbers[1:], strict=True):
                sums[name] += value
        losses = {name: value / max(positives, 1.0) for name, value in sums.items()}
        return {VALIDATION: {**losses, TOTAL: sum(losses.values())}} if losses else {}

    def _add_positives(self, count: Tensor) -> Tensor:
        """Normalizer that counts positives and does not scale."""
        count = count.float()
        self._count = count if self._count is None else self._count + count
        return torch.ones_like(count)

    def _obstacle_of(self, inputs: list[dict[str, Any]], passes: Sequence[Predictions]) -> str:
        if len(passes) != 1:
            return f"the detector made {len(passes)} forward passes for a batch, not one"
        for given in inputs:
            image = given.get("file_name", "an image")
            if "instances" not in given:
                return f"{image} has no ground truth"
            classes = given["instances"].gt_classes
            if len(classes) and int(classes.max()) >= self._detector.num_classes:
                return (
                    f"{image} has a class {int(classes.max())}, the detector's "
                    f"{self._detector.num_classes} are 0 to {self._detector.num_classes - 1}"
                )
        return ""


@contextmanager
def observed_losses(model: nn.Module, names: Sequence[str]) -> Iterator[list[ValidationLoss]]:
    """Context manager that provides a loss evaluator for each test set.

    Args:
        model: model to evaluate.
        names: names of the test sets.

    Yields:
        One evaluator per name; none if the model is not a :class:`FocalRetinaNet` or does not see
        each whole image exactly once, as with tiles. This is logged.
    """
    detector = inner_model(model)
    if not isinstance(detector, FocalRetinaNet):
        reason = f"{type(detector).__name__} does not give the predictions of a whole image"
        log_first_n(logging.INFO, f"No validation loss: {reason}", key="message", name=__name__)
        yield []
        return
    with LatestPredictions(detector) as latest:
        yield [ValidationLoss(latest, detector, name) for name in names]
