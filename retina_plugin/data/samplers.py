"""Samplers beside Detectron2's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from detectron2.data.samplers import RepeatFactorTrainingSampler
from torch import Tensor


class GroupBalancedSampler(RepeatFactorTrainingSampler):
    """An infinite stream in which small groups of images come more often than they are.

    A group of ``n`` images has a part of the stream in proportion to ``n^(1 - power)``: with 1 all
    groups come equally often, with 0 all images, which is ``TrainingSampler``. Every image comes at
    least once an epoch; see :func:`balancing_factors`. GPUs and worker processes share the stream,
    and a resumed training starts a new one, as with Detectron2's samplers.

    Args:
        groups: of each image.
        power: how strongly to balance, 0 to 1.
        shuffle, seed: of ``RepeatFactorTrainingSampler``.

    Raises:
        ValueError: see :func:`balancing_factors`.
    """

    def __init__(
        self,
        groups: Sequence[Any],
        *,
        power: float = 1.0,
        shuffle: bool = True,
        seed: int | None = None,
    ) -> None:
        factors = balancing_factors(groups, power=power)
        super().__init__(factors, shuffle=shuffle, seed=seed)


def balancing_factors(groups: Sequence[Any], *, power: float) -> Tensor:
    """How often an image comes in an epoch: ``(n of the largest group / n of its own)^power``.

    Args:
        groups: of each of N images, anything hashable.
        power: 0 to 1.

    Returns:
        ``(N,)``, 1 or more.

    Raises:
        ValueError: ``power`` is out of range, or there is no image.
    """
    if not 0 <= power <= 1:
        raise ValueError(f"DATALOADER.GROUP_POWER must be from 0 to 1, got {power!r}")
    if not groups:
        raise ValueError("there are no images to sample from: DATASETS.TRAIN has none")
    sizes = Counter(groups)
    largest = max(sizes.values())
    return torch.tensor([(largest / sizes[group]) ** power for group in groups])


def groups_of(records: Iterable[dict[str, Any]], field: str) -> list[str | int | float | bool]:
    """The group of each record.

    Args:
        records: in Detectron2's format.
        field: their key that names the group.

    Raises:
        ValueError: no field is given, or a record's is missing or no text or number.
    """
    if not field:
        raise ValueError(
            "DATALOADER.SAMPLER_TRAIN is GroupBalancedSampler, but DATALOADER.GROUP_FIELD is "
            "empty: set it to the field of the json's images that names an image's group"
        )
    groups = []
    for record in records:
        group = record.get(field)
        if not isinstance(group, str | int | float):
            raise ValueError(
                f"DATALOADER.GROUP_FIELD: image {record.get('image_id')} "
                f"({record.get('file_name')}) must have '{field}', a text or number, but has "
                f"{group!r}: write it to every image of the json"
            )
        groups.append(group)
    return groups
