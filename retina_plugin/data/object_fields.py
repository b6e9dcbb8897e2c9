"""Additional numbers of the json's annotations as fields of ``Instances``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

KEY = "DATASETS.COCO.EXTRA_ANNOTATION_KEYS"
NEUTRAL = {"weight": 1.0, "gamma_shift": 0.0}  # where an annotation lacks the key


def object_fields(annotations: Sequence[dict[str, Any]], keys: Sequence[str]) -> dict[str, Tensor]:
    """Make a field ``gt_<key>`` of the annotations' values of each key.

    Every image gets all fields, so that they can be concatenated. A missing ``weight`` is 1, a
    missing ``gamma_shift`` 0.

    Args:
        annotations: the M annotations of an image, in Detectron2's format.
        keys: the keys in ``DATASETS.COCO.EXTRA_ANNOTATION_KEYS``.

    Returns:
        A float32 tensor of shape ``(M,)`` for each key, or ``(M, n)`` for lists of n numbers.

    Raises:
        ValueError: if a value is missing, not finite or not a number, or if lists differ in length.
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
    """Whether the value is a finite number or a list of finite numbers."""
    numbers = value if isinstance(value, list) and value else [value]
    return all(isinstance(x, int | float) and math.isfinite(x) for x in numbers)


def _length(value: Any) -> int | None:
    return len(value) if isinstance(value, list) else None
