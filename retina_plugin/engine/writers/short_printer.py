"""The line on the screen, as Detectron2 prints it: of this step, not of the last evaluation."""

from __future__ import annotations

from typing import Any

from detectron2.utils.events import CommonMetricPrinter, EventStorage, get_event_storage

from retina_plugin.engine.tracked_metric import VALIDATION


class ShortPrinter(CommonMetricPrinter):
    """``CommonMetricPrinter`` without the validation losses, which it would repeat on each line.

    Asked twice for a step it prints once.
    """

    _printed = -1

    def write(self) -> None:
        """One line."""
        storage = get_event_storage()
        step = max((at for _, at in storage.latest().values()), default=storage.iter)
        if step > self._printed:
            self._printed = step
            with _OfTraining(storage):
                super().write()


class _OfTraining(EventStorage):
    """A view of a storage, to be entered, that hides what evaluations found."""

    def __init__(self, storage: EventStorage) -> None:
        vars(self).update(vars(storage))

    def histories(self) -> dict[str, Any]:
        hidden = f"{VALIDATION}/"
        return {name: x for name, x in super().histories().items() if hidden not in name}
