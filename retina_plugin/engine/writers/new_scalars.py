"""What a writer has not written yet."""

from __future__ import annotations

from collections import defaultdict

from detectron2.utils.events import EventStorage

WINDOW = 20  # steps that Detectron2's writers smooth over


class NewScalars:
    """The scalars of a storage since the last call, step by step, smoothed as Detectron2 does."""

    def __init__(self) -> None:
        self._last = -1

    def of(self, storage: EventStorage) -> dict[int, dict[str, float]]:
        """``step -> name -> value``, in the order of the steps."""
        new: dict[int, dict[str, float]] = defaultdict(dict)
        for name, (value, step) in storage.latest_with_smoothing_hint(WINDOW).items():
            if step > self._last:
                new[step][name] = value
        self._last = max(new, default=self._last)
        return dict(sorted(new.items()))
