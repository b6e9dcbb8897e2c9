"""Scalars that a writer has not written yet."""

from __future__ import annotations

from collections import defaultdict

from detectron2.utils.events import EventStorage

WINDOW = 20  # smoothing window of Detectron2's writers, in steps


class NewScalars:
    """Collect the scalars of a storage since the last call per step, smoothed as in Detectron2."""

    def __init__(self) -> None:
        self._last = -1

    def of(self, storage: EventStorage) -> dict[int, dict[str, float]]:
        """Return ``step -> name -> value``, ordered by step."""
        new: dict[int, dict[str, float]] = defaultdict(dict)
        for name, (value, step) in storage.latest_with_smoothing_hint(WINDOW).items():
            if step > self._last:
                new[step][name] = value
        self._last = max(new, default=self._last)
        return dict(sorted(new.items()))
