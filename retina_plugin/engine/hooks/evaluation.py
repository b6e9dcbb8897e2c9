"""Detectron2's evaluation hook, extended to pass its results to other hooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from detectron2.engine.hooks import EvalHook
from detectron2.evaluation.testing import flatten_results_dict


class FollowsEvaluation(Protocol):
    """Protocol of objects that receive the evaluation results; called on every worker."""

    def after_evaluation(self, metrics: Mapping[str, float]) -> None:
        """``metrics``: keyed as in ``metrics.json``; empty on workers other than the first."""


class Evaluation(EvalHook):
    """``EvalHook`` that passes on its results and never evaluates the same weights twice.

    Args:
        period: steps between evaluations; 0 to evaluate only at the end.
        evaluate: function that returns the nested results.
        followers: objects notified in order, after the results are logged.
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
        """Evaluate every ``period`` steps; the last step's weights are evaluated after training."""
        steps = self.trainer.iter + 1
        if self._period > 0 and steps % self._period == 0 and steps != self.trainer.max_iter:
            self._evaluated_after = steps
        super().after_step()

    def after_train(self) -> None:
        """Run the last evaluation unless the final weights were already evaluated."""
        if self.trainer.iter == self._evaluated_after:
            self._eval_after_train = False
        super().after_train()
