"""A moving average of the weights, which is what gets evaluated and shipped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from retina_plugin.config.keys import defaults_below
from retina_plugin.registry import unknown_name

KEY = "SOLVER.WEIGHT_AVERAGE"

logger = logging.getLogger(__name__)


class WeightAverage:
    """Exponential moving average ``a = d_t a + (1 - d_t) w`` of a model's weights w after a step.

    ``d_t = min(decay, (1 + t) / (warmup + t))`` for t updates so far, so that the average reaches
    back over the last ``1 / (warmup - 1)`` of the training until ``decay`` is reached, and forgets
    where it started. Parameters and floating-point buffers (a batch norm's statistics) are
    averaged; of other buffers there is the model's. One pass over the weights, no wait for the
    device; as all workers have the same weights, they have the same average.

    Source: Polyak and Juditsky 1992; the warm-up is TensorFlow's
    ``tf.train.ExponentialMovingAverage(num_updates=...)``, with its constant as an argument.

    Args:
        model: not wrapped for the workers.
        decay: the limit of d, in [0, 1).
        warmup: 1 or more; 1 means ``decay`` from the first step.
        evaluates_both: see :meth:`evaluate`.

    Attributes:
        updates: t.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self, model: nn.Module, *, decay: float, warmup: float = 10.0, evaluates_both: bool = False
    ) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"{KEY}.DECAY must be in [0, 1), such as 0.9998, got {decay}")
        if not warmup >= 1:
            raise ValueError(f"{KEY}.WARMUP must be 1 (none) or more, got {warmup}")
        self.decay = decay
        self.warmup = warmup
        self.evaluates_both = evaluates_both
        self._model = model
        self._is_applied = False
        self._names = set(model.state_dict())
        self.restart()

    def restart(self) -> None:
        """Begin at the model's present weights."""
        self.updates = 0
        self._average = {name: x.detach().clone() for name, x in self._weights().items()}

    @torch.no_grad()
    def update(self) -> None:
        """After an optimizer's step."""
        decay = min(self.decay, (1 + self.updates) / (self.warmup + self.updates))
        weights = self._weights()
        torch._foreach_lerp_(
            list(self._average.values()), [weights[name] for name in self._average], 1 - decay
        )
        self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within, the model has the averaged weights; afterwards its own again, to the bit."""
        assert not self._is_applied
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def evaluate(self, evaluate: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Results with the averaged weights.

        Where ``evaluates_both``, those of the trained ones, which are not averaged, are beside
        them under ``raw``; the files that an evaluator writes are the average's.
        """
        raw = {}
        if self.evaluates_both:
            logger.info("Evaluating the trained weights, which are not averaged")
            raw = evaluate()
        logger.info(f"Evaluating the average of the weights after {self.updates} steps")
        with self.applied():
            results = dict(evaluate())
        return {**results, "raw": raw} if raw else results

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs beside the averaged weights: the trained ones and t."""
        trained = self._average if self._is_applied else self._weights()
        return {"updates": self.updates, "trained": {n: x.detach() for n, x in trained.items()}}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Of a model that has loaded the averaged weights: it gets the trained ones back."""
        self.restart()
        self.updates = state["updates"]
        self._model.load_state_dict(state["trained"], strict=False)

    def _weights(self) -> dict[str, Tensor]:
        """What is averaged. Looked up each time: a module may put another tensor into a buffer."""
        tensors = {**dict(self._model.named_parameters()), **dict(self._model.named_buffers())}
        return {n: x for n, x in tensors.items() if n in self._names and x.is_floating_point()}

    def _swap(self) -> None:
        self._is_applied = not self._is_applied
        for name, weight in self._weights().items():
            average = self._average[name]
            weight.data, average.data = average.data, weight.data


def build_weight_average(model: nn.Module, settings: Mapping[str, Any]) -> WeightAverage | None:
    """The average that ``SOLVER.WEIGHT_AVERAGE`` asks for, or None: its ``DECAY`` is 0.

    Args:
        model: not wrapped for the workers.
        settings: the keys of ``SOLVER.WEIGHT_AVERAGE``.

    Raises:
        UnknownNameError: an unknown key; lists the valid ones.
        ValueError: a value is out of range.
    """
    defaults = defaults_below(KEY)
    for key in settings:
        if key not in defaults:
            raise unknown_name(KEY, key, defaults)
    values = {**defaults, **settings}
    if values["DECAY"] == 0:
        return None
    return WeightAverage(
        model,
        decay=values["DECAY"],
        warmup=values["WARMUP"],
        evaluates_both=values["EVALUATE_BOTH"],
    )
