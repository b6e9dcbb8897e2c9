"""``curves.png``: plot of ``metrics.json``, redrawn after each evaluation."""

from __future__ import annotations

import logging
from pathlib import Path

from detectron2.utils.events import EventWriter, get_event_storage

from retina_plugin.engine.tracked_metric import VALIDATION
from retina_plugin.evaluation.curves import APS, draw_curves

logger = logging.getLogger(__name__)


class CurvesWriter(EventWriter):
    """Redraw the curves on new results and at the end; place it after ``JSONWriter``.

    Args:
        metrics_json: path of the file that ``JSONWriter`` writes.
        picture: path of the PNG file.
    """

    def __init__(self, metrics_json: Path, picture: Path) -> None:
        self._metrics_json = metrics_json
        self._picture = picture
        self._last_evaluation = -1
        self._drawn_size = 0  # size of metrics.json

    def write(self) -> None:
        """See ``EventWriter``."""
        latest = get_event_storage().latest()
        evaluation = max((at for name, (_, at) in latest.items() if _is_result(name)), default=-1)
        if evaluation > self._last_evaluation:
            self._last_evaluation = evaluation
            self._draw()

    def close(self) -> None:
        """Draw at the end of the training, successful or not."""
        self._draw()

    def _draw(self) -> None:
        size = self._metrics_json.stat().st_size if self._metrics_json.is_file() else 0
        if size == self._drawn_size:
            return
        self._drawn_size = size
        try:
            draw_curves(self._metrics_json, self._picture)
        except (OSError, ValueError) as error:  # must not end the training
            logger.warning(f"{self._picture} was not drawn: {error}")


def _is_result(name: str) -> bool:
    return f"{VALIDATION}/" in name or any(name.endswith(ap) for ap in APS)
