"""What of a file reached a network, and what did not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

COUNTER = "num_batches_tracked"  # BatchNorm's, which no result depends on: not counted
SHOWN = 3


@dataclass(frozen=True)
class WeightReport:
    """Which of a network's tensors a file had.

    Attributes:
        source: the file.
        target: the network, such as ``backbone.bottom_up``.
        layout: how the file's names were read.
        total: tensors of the network.
        missing: names of the network that the file lacks.
        wrong_shape: name, shape in the file, shape in the network.
        unexpected: names of the file that nothing used.
        notes: what was changed on the way.
    """

    source: str
    target: str
    layout: str
    total: int
    missing: Sequence[str] = ()
    wrong_shape: Sequence[tuple[str, tuple[int, ...], tuple[int, ...]]] = ()
    unexpected: Sequence[str] = ()
    notes: Sequence[str] = ()

    @property
    def matched(self) -> int:
        """How many of the network's tensors were in the file, in their shape."""
        return self.total - len(self.missing) - len(self.wrong_shape)

    @property
    def share(self) -> float:
        """Of the network's tensors, in [0, 1]; 1 for a network without any."""
        return self.matched / self.total if self.total else 1.0

    @property
    def complete(self) -> bool:
        """Whether every tensor of both sides was used."""
        return not (self.missing or self.wrong_shape or self.unexpected)

    def __str__(self) -> str:
        shapes = [f"{name} {came} for {wanted}" for name, came, wanted in self.wrong_shape]
        groups = (
            ("missing", self.missing),
            ("of another shape", shapes),
            ("unexpected", self.unexpected),
        )
        counts = [f"{len(names)} {what}: {first(names)}" for what, names in groups if names]
        head = f"{self.matched} of {self.total} tensors of {self.target} from {self.source}"
        lines = [f"{head} ({self.layout})", *counts, *self.notes]
        return "; ".join(lines)


def first(names: Sequence[str], shown: int = SHOWN) -> str:
    """The first few of them."""
    return ", ".join([*names[:shown], *(["..."] if len(names) > shown else [])])


def counted(names: Iterable[str]) -> list[str]:
    """Names without BatchNorm's step counters, which some files have and others have not."""
    return [name for name in names if not name.endswith(COUNTER)]
