"""Detectron2's evaluation hook, which tells others what it found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from detectron2.engine.hooks import EvalHook
from detectron2.evaluation.testing import flatten_results_dict


class FollowsEvaluation(Protocol):
    """What wants to know the results; called on every worker."""

    def after_evaluation(self, metrics: Mapping[str, float]) -> None:
        """``metrics``: by the names in ``metrics.json``; empty on workers other than the first."""


class Evaluation(EvalHook):
    """``EvalHook`` that hands the results on, and evaluates no weights twice.

    Args:
        period: steps between evaluations; 0 for one at the end alone.
        evaluate: returns the results, nested.
        followers: told one after the other, once the results are logged.
    """

    def __init__(
        self,
        period: int,
        evaluate: Callable[[], dict[str, Any]],
        followers: Sequence[FollowsEvaluation] = (),
    ) -> None:
        self._metrics: dict[str, float] = {}
        self._evaluated_after = -1  # steps
        self._followers = list(followers)

        def kept() -> dict[str, Any]:
            results = evaluate()
            self._metrics = flatten_results_dict(results or {})
            return results

        super().__init__(period, kept)

    def _do_eval(self) -> None:
        super()._do_eval()
        for follower in self._followers:
            follower.after_evaluation(self._metrics)

    def after_step(self) -> None:
        """At the period; the weights of the last step are evaluated after training."""
        steps = self.trainer.iter + 1
        if self._period > 0 and steps % self._period == 0 and steps != self.trainer.max_iter:
            self._evaluated_after = steps
        super().after_step()

    def after_train(self) -> None:
        """The last evaluation, unless the training was stopped because of one just made."""
        if self.trainer.iter == self._evaluated_after:
            self._eval_after_train = False
        super().after_train()
