"""Two images, the one shining through the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from retina_plugin.data.mixed_records import combine, size_of
from retina_plugin.data.placement import Placement, random_placement
from retina_plugin.data.tiling import Window


def mixup(
    records: Sequence[dict[str, Any]], *, alpha: float = 32.0, min_visible: float = 0.0
) -> dict[str, Any]:
    """``m * first + (1 - m) * second`` with ``m ~ Beta(alpha, alpha)``; the objects of both count.

    The result has the first image's size: of a larger second one a random part is taken, a smaller
    one lies anywhere; around it the first is as it was.

    Args:
        records: two, as a mapper gives them; not changed. The first one's other keys are kept.
        alpha: the larger, the nearer is ``m`` to one half.
        min_visible: least share of a box that must be left; see ``place_instances``.

    Source: Zhang et al., mixup, 2018; for detection Zhang et al., Bag of Freebies for Training
    Object Detection Neural Networks, 2019 (``alpha`` 1.5, the images left unscaled as here, which
    weighs the objects by ``m``) and YOLOX, 2021 (``m`` one half, no weights, as here).
    """
    first, second = records
    height, width = canvas = size_of(first)
    whole = Window(0, 0, width, height)
    placements = [
        Placement(canvas, canvas, 0, 0, whole, canvas),
        random_placement(size_of(second), whole, canvas),
    ]
    share = float(np.random.beta(alpha, alpha))
    region = placements[1].region
    image = first["image"].clone()
    image[region] = _blend(image[region], placements[1].pixels(second["image"]), share)
    return combine(records, placements, image, min_visible=min_visible)


def _blend(first: Tensor, second: Tensor, share: float) -> Tensor:
    blended = share * first.float() + (1 - share) * second.float()
    return blended.to(first.dtype) if first.is_floating_point() else blended.round().to(first.dtype)
