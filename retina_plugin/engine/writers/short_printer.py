"""Console output as in Detectron2, without the results of the last evaluation."""

from __future__ import annotations

from typing import Any

from detectron2.utils.events import CommonMetricPrinter, EventStorage, get_event_storage

from retina_plugin.engine.tracked_metric import VALIDATION


class ShortPrinter(CommonMetricPrinter):
    """``CommonMetricPrinter`` without validation losses, which it would repeat on each line.

    Prints at most one line per step.
    """

    _printed = -1

    def write(self) -> None:
        """Print one line."""
        storage = get_event_storage()
        step = max((at for _, at in storage.latest().values()), default=storage.iter)
        if step > self._printed:
            self._printed = step
            with _OfTraining(storage):
                super().write()


class _OfTraining(EventStorage):
    """View of an event storage, used as a context manager, that hides validation losses."""

    def __init__(self, storage: EventStorage) -> None:
        vars(self).update(vars(storage))

    def histories(self) -> dict[str, Any]:
        hidden = f"{VALIDATION}/"
        return {name: x for name, x in super().histories().items() if hidden not in name}
