"""Losses that a head or a front-end brings, beside the detector's."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def add_own_losses(sums: dict[str, Tensor], own: Mapping[str, Tensor], giver: object) -> None:
    """Add a part's own losses to ``sums``, which is changed.

    Raises:
        ValueError: a name is taken; one of the two would vanish.
    """
    for name in own:
        if name in sums:
            raise ValueError(
                f"{type(giver).__name__} calls a loss of its own '{name}', but there is a loss of "
                f"that name; there are {', '.join(sums)}: give it another name"
            )
    sums.update(own)
