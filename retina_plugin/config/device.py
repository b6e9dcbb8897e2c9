"""The device that a config names, where this machine has it."""

from __future__ import annotations

import logging

import torch

logger = logging.getLogger(__name__)


def available_device(device: str, key: str) -> str:
    """``device``, or the CPU instead of a CUDA that is not there, with a warning.

    Detectron2's default device is CUDA; without one it would fail deep inside the driver.
    """
    if not device.startswith("cuda") or torch.cuda.is_available():
        return device
    logger.warning(f"{key} is {device}, but there is no CUDA here: using the CPU")
    return "cpu"
