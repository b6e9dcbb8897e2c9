"""Gradient accumulation: an optimizer step over micro-batches that equals one large batch."""

from __future__ import annotations

import inspect

from torch import nn

KEY = "SOLVER.ACCUMULATE (in a LazyConfig train.accumulate)"


def micro_batch_size(images: int, *, accumulate: int, workers: int) -> int:
    """Return the number of images per micro-batch, summed over all worker processes.

    Args:
        images: images per optimizer step, ``SOLVER.IMS_PER_BATCH``.
        accumulate: micro-batches per optimizer step.
        workers: number of worker processes that share each micro-batch.

    Raises:
        ValueError: if ``accumulate`` is not a positive integer, or the images cannot be divided
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
    """Raise an error unless the model can normalize its losses over several micro-batches.

    Raises:
        ValueError: if ``forward`` has no ``normalizer`` argument, as in Detectron2's RetinaNet.
    """
    if "normalizer" not in inspect.signature(model.forward).parameters:
        raise ValueError(
            f"{KEY} is more than 1, but {type(model).__name__} cannot divide the losses of several "
            "micro-batches by the positives of all of them: set MODEL.META_ARCHITECTURE to "
            "FocalRetinaNet, or the key to 1"
        )
