"""Detectron2's writers, which write the results of an evaluation as soon as they are there."""

from __future__ import annotations

from collections.abc import Mapping

from detectron2.engine.hooks import PeriodicWriter


class PromptWriter(PeriodicWriter):
    """``PeriodicWriter`` that also writes after each evaluation, whatever the period.

    A training that is killed then has lost none. Follows :class:`~.evaluation.Evaluation`.
    """

    _is_due = False

    def after_evaluation(self, metrics: Mapping[str, float]) -> None:
        """See :class:`~.evaluation.FollowsEvaluation`."""
        self._is_due = True

    def after_step(self) -> None:
        """At the period, after an evaluation, and after the last step."""
        steps = self.trainer.iter + 1
        is_due, self._is_due = self._is_due, False
        if is_due and steps % self._period and steps != self.trainer.max_iter:
            for writer in self._writers:
                writer.write()
        super().after_step()
