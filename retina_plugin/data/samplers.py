"""Samplers beside Detectron2's."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any

import torch
from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler
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


class NearbyTilesSampler(TrainingSampler):
    """An infinite stream of tiles, every one once an epoch, those of an image near each other.

    An epoch is images in random order, ``together`` at a time, and of these all tiles in random
    order: a loader's process that keeps that many decoded images decodes each once an epoch. A
    batch holds tiles of up to ``together`` images, which is the price: the fewer, the more alike.

    Args:
        images: which image each tile is of.
        together: images whose tiles are mixed, 1 or more.
        seed: of ``TrainingSampler``.
    """

    def __init__(
        self, images: Sequence[Hashable], *, together: int, seed: int | None = None
    ) -> None:
        super().__init__(len(images), seed=seed)
        tiles: dict[Hashable, list[int]] = defaultdict(list)
        for index, image in enumerate(images):
            tiles[image].append(index)
        self._tiles = list(tiles.values())
        self._together = together

    def _infinite_indices(self) -> Iterator[int]:
        """What the GPUs, and then their worker processes, share in ``TrainingSampler``'s way."""
        generator = torch.Generator()
        generator.manual_seed(self._seed)
        while True:
            order = torch.randperm(len(self._tiles), generator=generator).tolist()
            for start in range(0, len(order), self._together):
                images = order[start : start + self._together]
                tiles = [tile for image in images for tile in self._tiles[image]]
                for place in torch.randperm(len(tiles), generator=generator).tolist():
                    yield tiles[place]


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
