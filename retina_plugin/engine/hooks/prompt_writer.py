"""Detectron2's writer hook, which writes evaluation results as soon as they are available."""

from __future__ import annotations

from collections.abc import Mapping

from detectron2.engine.hooks import PeriodicWriter


class PromptWriter(PeriodicWriter):
    """``PeriodicWriter`` that also writes after each evaluation, regardless of the period.

    No results are lost if the training is killed. Notified by :class:`~.evaluation.Evaluation`.
    """

    _is_due = False

    def after_evaluation(self, metrics: Mapping[str, float]) -> None:
        """See :class:`~.evaluation.FollowsEvaluation`."""
        self._is_due = True

    def after_step(self) -> None:
        """Write every ``period`` steps, after an evaluation, and after the last step."""
        steps = self.trainer.iter + 1
        is_due, self._is_due = self._is_due, False
        if is_due and steps % self._period and steps != self.trainer.max_iter:
            for writer in self._writers:
                writer.write()
        super().after_step()
