"""Head, anchors and classes are built apart in a LazyConfig: they must fit each other."""

from __future__ import annotations

from collections.abc import Sequence

from retina_plugin.modeling.contracts import Predictions


def check_levels(
    predictions: Predictions, *, names: Sequence[str], num_classes: int, box_dim: int
) -> None:
    """Raise unless every level has as many logits and deltas as its anchors need.

    Args:
        predictions: of any batch.
        names: of the levels.
        num_classes: K.
        box_dim: D.

    Raises:
        ValueError: names the level, what it needs and what came.
    """
    maps = zip(names, predictions.logits, predictions.deltas, predictions.anchors, strict=True)
    for name, logits, deltas, anchors in maps:
        cells = logits.shape[2] * logits.shape[3]
        per_cell = len(anchors) // max(cells, 1)
        wanted = per_cell * num_classes, per_cell * box_dim
        came = logits.shape[1], deltas.shape[1]
        if wanted != came:
            raise ValueError(
                f"level {name} has {per_cell} anchors per cell and {num_classes} classes, so the "
                f"head must give {wanted[0]} logits and {wanted[1]} deltas per cell; it gives "
                f"{came[0]} and {came[1]}: give the head the anchor generator's num_anchors and "
                "the model's num_classes"
            )
