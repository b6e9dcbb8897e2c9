"""An optimizer's step in several micro-batches that equals one with the large batch."""

from __future__ import annotations

import inspect

from torch import nn

KEY = "SOLVER.ACCUMULATE (in a LazyConfig train.accumulate)"


def micro_batch_size(images: int, *, accumulate: int, workers: int) -> int:
    """Images of one micro-batch, of all workers together.

    Args:
        images: of an optimizer's step: ``SOLVER.IMS_PER_BATCH``.
        accumulate: micro-batches a step.
        workers: which share every micro-batch.

    Raises:
        ValueError: ``accumulate`` is no whole number above 0, or the images cannot be shared
            evenly.
    """
    if type(accumulate) is not int or accumulate < 1:
        raise ValueError(f"{KEY} must be a whole number, 1 or more, got {accumulate!r}")
    if images % (accumulate * workers):
        parts = f" in {accumulate} micro-batches" if accumulate > 1 else ""
        raise ValueError(
            "SOLVER.IMS_PER_BATCH is the batch of an optimizer's step, of all workers together: "
            f"{images} images cannot be shared evenly by {workers} workers{parts}. Make it a "
            f"multiple of {accumulate * workers}"
        )
    return images // accumulate


def require_accumulable(model: nn.Module) -> None:
    """Raise unless the model can divide its losses by the normalizer of a larger batch.

    Raises:
        ValueError: its ``forward`` takes no ``normalizer``: Detectron2's own RetinaNet, say.
    """
    if "normalizer" not in inspect.signature(model.forward).parameters:
        raise ValueError(
            f"{KEY} is more than 1, but {type(model).__name__} cannot divide the losses of several "
            "micro-batches by the positives of all of them: set MODEL.META_ARCHITECTURE to "
            "FocalRetinaNet, or the key to 1"
        )
