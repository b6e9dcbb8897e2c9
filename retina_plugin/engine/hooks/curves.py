"""``curves.png``: what ``metrics.json`` says, drawn anew after each evaluation."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from detectron2.engine.train_loop import HookBase

from retina_plugin.evaluation.curves import draw_curves

logger = logging.getLogger(__name__)


class Curves(HookBase):
    """Draws the curves after an evaluation and at the end; put it after what writes.

    Follows :class:`~.evaluation.Evaluation`.

    Args:
        metrics_json: Detectron2's file of the training; where it is not written nothing is drawn.
        picture: the PNG.
    """

    def __init__(self, metrics_json: Path, picture: Path) -> None:
        self._metrics_json = metrics_json
        self._picture = picture
        self._is_due = False

    def after_evaluation(self, metrics: Mapping[str, float]) -> None:
        """See :class:`~.evaluation.FollowsEvaluation`."""
        self._is_due = True

    def after_step(self) -> None:
        """After an evaluation."""
        if self._is_due:
            self._draw()

    def after_train(self) -> None:
        """Of whatever was trained, in case of an error as well."""
        self._draw()

    def _draw(self) -> None:
        self._is_due = False
        if not self._metrics_json.is_file():
            return
        try:
            draw_curves(self._metrics_json, self._picture)
        except (OSError, ValueError) as error:  # no reason to lose a training
            logger.warning(f"{self._picture} was not drawn: {error}")
