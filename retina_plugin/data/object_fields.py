"""What the json says of an object beside its box, as fields of ``Instances``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

KEY = "DATASETS.COCO.EXTRA_ANNOTATION_KEYS"
NEUTRAL = {"weight": 1.0, "gamma_shift": 0.0}  # of an annotation that does not say it


def object_fields(annotations: Sequence[dict[str, Any]], keys: Sequence[str]) -> dict[str, Tensor]:
    """The numbers that annotations give under ``keys``, one field ``gt_<key>`` each.

    Every image gets all fields, so that they can be concatenated. ``weight`` is 1 and
    ``gamma_shift`` 0 where an annotation lacks them.

    Args:
        annotations: M of them, in Detectron2's format.
        keys: of ``DATASETS.COCO.EXTRA_ANNOTATION_KEYS``.

    Returns:
        ``(M,)`` float32 each; ``(M, n)`` for lists of n numbers.

    Raises:
        ValueError: a number is missing, not finite or no number, or lists differ in length.
    """
    fields = {}
    for key in keys:
        values = [annotation.get(key, NEUTRAL.get(key)) for annotation in annotations]
        wrong = [value for value in values if not is_number_or_list(value)]
        if wrong or len({_length(value) for value in values}) > 1:
            what = repr(wrong[0]) if wrong else "lists of different lengths"
            raise ValueError(
                f"{KEY}: an annotation's '{key}' must be a finite number, or a list of as many of "
                f"them in every annotation, got {what}: correct the json"
            )
        fields[f"gt_{key}"] = torch.tensor(values, dtype=torch.float32)
    return fields


def is_number_or_list(value: Any) -> bool:
    """Whether it is a finite number or a list of them."""
    numbers = value if isinstance(value, list) and value else [value]
    return all(isinstance(x, int | float) and math.isfinite(x) for x in numbers)


def _length(value: Any) -> int | None:
    return len(value) if isinstance(value, list) else None
