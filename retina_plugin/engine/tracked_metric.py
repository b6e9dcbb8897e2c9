"""Evaluation metric that selects checkpoints or stops the training: its name and direction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from detectron2.data import MetadataCatalog

from retina_plugin.config.keys import check_choice
from retina_plugin.evaluation.build import evaluator_type
from retina_plugin.registry import unknown_name

VALIDATION = "validation"  # task name of the losses, besides ``bbox``


@dataclass(frozen=True)
class TrackedMetric:
    """A metric named as in ``metrics.json``, such as ``bbox/AP`` or ``validation/total_loss``.

    Args:
        name: metric name, with several test sets prefixed by the set: ``digits_val/bbox/AP``.
        mode: ``max``, ``min``, or ``auto``: ``min`` for losses, else ``max``.
        key: config key for error messages.
        is_required: whether an evaluation without the metric is an error.

    Raises:
        UnknownNameError: if the mode is unknown.
    """

    name: str
    mode: str = "auto"
    key: str = "TEST.BEST"
    is_required: bool = True

    def __post_init__(self) -> None:
        check_choice(f"{self.key}.MODE", self.mode)

    @property
    def sign(self) -> int:
        """1 if higher is better, else -1."""
        if self.mode == "auto":
            return -1 if "loss" in self.name.rpartition("/")[2] else 1
        return 1 if self.mode == "max" else -1

    def improves(self, value: float, best: float | None, *, by: float = 0.0) -> bool:
        """Whether ``value`` is better than ``best`` by more than ``by``; NaN never is."""
        if math.isnan(value):
            return False
        return best is None or self.sign * (value - best) > by

    def value_in(self, metrics: Mapping[str, float]) -> float:
        """Return the value of the metric, or NaN if it is missing and not required.

        Raises:
            UnknownNameError: if it is missing and required; lists the valid names.
        """
        if self.name not in metrics and self.is_required:
            raise unknown_name(f"{self.key}.METRIC", self.name, metrics)
        return metrics.get(self.name, math.nan)


def tracked_metric(
    name: str, mode: str = "auto", *, test_sets: Sequence[str], key: str
) -> TrackedMetric | None:
    """Return the configured metric, or None if the name is empty or there are no test sets.

    Args:
        name: metric name, without prefix that of the first test set; ``auto`` is COCO's
            AP, if the evaluation computes it.
        mode: see :class:`TrackedMetric`.
        test_sets: ``DATASETS.TEST``.
        key: config node with ``METRIC`` and ``MODE``.

    Raises:
        UnknownNameError: see :class:`TrackedMetric`.
    """
    if not name or not test_sets:
        return None
    is_required = name != "auto"
    name = name if is_required else "bbox/AP"
    if len(test_sets) > 1 and not any(name.startswith(f"{x}/") for x in (*test_sets, "raw")):
        name = f"{test_sets[0]}/{name}"
    return TrackedMetric(name, mode, key=key, is_required=is_required)


def check_metric(
    metric: TrackedMetric, test_sets: Sequence[str], *, validation_loss: bool, raw: bool
) -> None:
    """Raise an error before the training if no plugin evaluation computes the metric.

    The names of the validation losses depend on the detector and are unknown before it runs.

    Args:
        metric: the configured metric.
        test_sets: names of the registered test sets that use the plugin's evaluators.
        validation_loss: whether validation losses are computed.
        raw: whether the non-averaged weights are evaluated, too.

    Raises:
        UnknownNameError: if the metric is unknown; lists the available ones.
    """
    valid = [f"{VALIDATION}/total_loss"] if validation_loss else []
    for name in test_sets:
        prefix = f"{name}/" if len(test_sets) > 1 else ""
        of_set = [f"{prefix}bbox/{x}" for x in _numbers_of(name)]
        if validation_loss and metric.name.startswith(f"{prefix}{VALIDATION}/"):
            return
        valid += of_set
    asked = metric.name.removeprefix("raw/") if raw else metric.name
    if asked not in valid:
        raise unknown_name(f"{metric.key}.METRIC", metric.name, valid)


def _numbers_of(test_set: str) -> list[str]:
    kind = evaluator_type(test_set)
    if kind == "pascal_voc":
        return ["AP", "AP50", "AP75"]
    numbers = ["AP", "AP50", "AP75", "APs", "APm", "APl"]
    if kind == "lvis":
        return [*numbers, "APr", "APc", "APf"]
    classes = MetadataCatalog.get(test_set).get("thing_classes", ())
    return [*numbers, *(f"AP-{x}" for x in classes)]
