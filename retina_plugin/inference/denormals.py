"""Numbers too small for the CPU's fast path."""

from __future__ import annotations

import logging

import torch

logger = logging.getLogger(__name__)


def flush_denormals() -> None:
    """Take denormal numbers (below 1e-38 in fp32) as 0, in this thread and those it starts.

    A CPU computes with them some hundred times slower. They come up where activations explode: the
    focal loss' gradient of a sure background is ``p^gamma`` of a tiny ``p``. In a healthy network
    it makes no difference, in results or in time: a guard, not a gain. Call it before anything
    large is computed: the threads that share the work inherit it when they start.
    """
    if not torch.set_flush_denormal(True):
        logger.warning("FLUSH_DENORMAL has no effect: this CPU cannot take denormal numbers as 0")
