"""``INPUT.MIX``: images made of several, until the last steps of the training."""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from torch.utils.data import get_worker_info

from retina_plugin.data.copy_paste import copy_paste
from retina_plugin.data.mixup import mixup
from retina_plugin.data.mosaic import IMAGES, mosaic
from retina_plugin.registry import unknown_name

KEY = "INPUT.MIX"
POOL = 1024  # records among which the further ones are drawn

Record = dict[str, Any]

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mix:
    """How images are mixed; the keys of ``INPUT.MIX``.

    Attributes:
        mosaic_prob: chance of an image to become a mosaic of four.
        mixup_prob: chance that another image shines through.
        copy_paste_prob: chance that another image's objects are pasted.
        size: sides of a mosaic in pixels; 0 for the size of its first image.
        mosaic_scale: least and greatest factor of a mosaic's images.
        mixup_alpha: see :func:`mixup`.
        copy_paste_share: chance of each object of the other image to be pasted.
        min_visible: least share of an object that must be left of it; else it is dropped.
        close_steps: last steps of the training whose images are not mixed.

    Raises:
        ValueError: a number is not what it may be.
    """

    mosaic_prob: float = 0.0
    mixup_prob: float = 0.0
    copy_paste_prob: float = 0.0
    size: int = 0
    mosaic_scale: tuple[float, float] = (0.5, 1.0)
    mixup_alpha: float = 32.0
    copy_paste_share: float = 0.5
    min_visible: float = 0.25
    close_steps: int = 0

    def __post_init__(self) -> None:
        for name in ("mosaic_prob", "mixup_prob", "copy_paste_prob", "copy_paste_share"):
            self._require(name, lambda x: 0 <= x <= 1, "a chance from 0 to 1")
        self._require("min_visible", lambda x: 0 <= x <= 1, "a share from 0 to 1")
        for name in ("size", "close_steps"):
            self._require(name, lambda x: type(x) is int and x >= 0, "a whole number, 0 or more")
        self._require("mixup_alpha", lambda x: x > 0, "a number above 0")
        self._require(
            "mosaic_scale",
            lambda x: len(x) == 2 and 0 < x[0] <= x[1],
            "two positive numbers that do not fall",
        )

    def _require(self, name: str, holds: Callable[[Any], bool], expected: str) -> None:
        value = getattr(self, name)
        try:
            right = holds(value)
        except TypeError:  # a text, say
            right = False
        if not right:
            raise ValueError(f"{KEY}.{name.upper()} must be {expected}, got {value!r}")

    @property
    def is_on(self) -> bool:
        """Whether any image is mixed."""
        return max(self.mosaic_prob, self.mixup_prob, self.copy_paste_prob) > 0

    @classmethod
    def from_config(cls, cfg: CfgNode) -> Mix:
        """Of ``INPUT.MIX``, which may lack keys or be absent.

        Raises:
            UnknownNameError: an unknown key; lists the valid ones.
            ValueError: see the class.
        """
        valid = [field.name.upper() for field in dataclasses.fields(cls)]
        node = cfg.INPUT.get("MIX", {})
        for key in node:
            if key not in valid:
                raise unknown_name(KEY, key, valid)
        return cls(**{key.lower(): value for key, value in node.items()})


class MixingMapper:
    """A mapper of several records, around one of a single record.

    The further records come from those that this worker process got last, 1,024 at most: they
    follow the sampler, whatever it is, and an iterable data set will do. Each image is augmented by
    itself before it is mixed. The order is mosaic, copy-paste, mixup. Random numbers are numpy's
    global ones, as of all augmentations, so they follow the seed of the worker.

    **Closing.** The training's last ``mix.close_steps`` steps see plain images, so that it ends on
    what the model will be used for (Ge et al., YOLOX, 2021). Every process counts the samples that
    it made, from which follows the step that will consume one, however far it is ahead: the first
    plain image is in the first batch of the closing phase, exactly, with any number of worker
    processes. Only grouping by aspect ratio, which holds images back, delays a few.

    Args:
        mapper: record -> input of a detector with ``instances``, or None, which is passed on; must
            not change the record.
        mix: how images are mixed.
        last_step: first step whose images are not mixed; None for never.
        images_per_step: of an optimizer's step on this GPU.
        images_per_chunk: how many samples in a row a worker process makes: those of a batch.
    """

    def __init__(
        self,
        mapper: Callable[[Record], Record | None],
        *,
        mix: Mix,
        last_step: int | None = None,
        images_per_step: int = 1,
        images_per_chunk: int = 1,
    ) -> None:
        self.mapper = mapper
        self.mix = mix
        self.last_step = last_step
        self.images_per_step = images_per_step
        self.images_per_chunk = images_per_chunk
        self._pool: deque[Record] = deque(maxlen=POOL)
        self.start_at(0)

    def start_at(self, step: int) -> None:
        """The next sample is the first one of that step; before the workers start."""
        self._first_step = step
        self._made = 0

    def __call__(self, record: Record) -> Record | None:
        """The sample of a record, or made of it and others."""
        self._pool.append(record)
        sample = self.mapper(record)
        if sample is None:
            return None
        is_closing = self.last_step is not None and self._step() >= self.last_step
        self._made += 1
        return sample if is_closing else self._mixed(sample)

    def _step(self) -> int:
        """The step that the next sample is for; batches come from the workers by turns."""
        worker = get_worker_info()
        which, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        chunk, place = divmod(self._made, self.images_per_chunk)
        number = (chunk * workers + which) * self.images_per_chunk + place
        return self._first_step + number // self.images_per_step

    def _mixed(self, sample: Record) -> Record:
        mix, least = self.mix, {"min_visible": self.mix.min_visible}
        if _happens(mix.mosaic_prob):
            samples = [sample, *self._others(IMAGES - 1)]
            if len(samples) == IMAGES:
                sample = mosaic(samples, side=mix.size, scale=mix.mosaic_scale, **least)
        if _happens(mix.copy_paste_prob):
            for other in self._others(1):
                sample = copy_paste([sample, other], share=mix.copy_paste_share, **least)
        if _happens(mix.mixup_prob):
            for other in self._others(1):
                sample = mixup([sample, other], alpha=mix.mixup_alpha, **least)
        return sample

    def _others(self, count: int) -> list[Record]:
        """Samples of other records; fewer where the mapper skips one."""
        chosen = [self._pool[np.random.randint(len(self._pool))] for _ in range(count)]
        samples = [self.mapper(record) for record in chosen]
        return [sample for sample in samples if sample is not None]


def _happens(chance: float) -> bool:
    """Draws no number where it never does, so that what is off changes nothing."""
    return chance > 0 and np.random.rand() < chance
