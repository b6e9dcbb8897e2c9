"""Four images around a point, in one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from retina_plugin.data.mixed_records import blank, combine, size_of
from retina_plugin.data.placement import random_placement
from retina_plugin.data.tiling import Window

IMAGES = 4


def mosaic(
    records: Sequence[dict[str, Any]],
    *,
    side: int = 0,
    scale: tuple[float, float] = (0.5, 1.0),
    min_visible: float = 0.0,
) -> dict[str, Any]:
    """Four images in the quarters around a random point, each scaled and cut by chance.

    The point is uniform in the middle half of either side. An image larger than its quarter is cut
    at a random place; one that is smaller lies anywhere in it, on grey.

    Args:
        records: four, as a mapper gives them; not changed. The first one's other keys are kept.
        side: pixels of the result's sides; 0 for the size of the first image.
        scale: least and greatest factor of the images' sizes, uniform between.
        min_visible: least share of a box that must be left; see ``place_instances``.

    Source: Bochkovskiy et al., YOLOv4, 2020, figure 3. There, and in YOLOX, the corner next to the
    point is the one that shows, and a random affine transform follows; here the cut is random, and
    augmentations belong into ``INPUT.AUGMENTATIONS``, which each image had before.
    """
    height, width = canvas = (side, side) if side else size_of(records[0])
    x, y = (round(np.random.uniform(0.25, 0.75) * length) for length in (width, height))
    quarters = [
        Window(0, 0, x, y),
        Window(x, 0, width, y),
        Window(0, y, x, height),
        Window(x, y, width, height),
    ]
    placements = [
        random_placement(size_of(record), quarter, canvas, scale=np.random.uniform(*scale))
        for record, quarter in zip(records, quarters, strict=True)
    ]
    image = blank(records[0]["image"], canvas)
    for record, placement in zip(records, placements, strict=True):
        image[placement.region] = placement.pixels(record["image"])
    return combine(records, placements, image, min_visible=min_visible)
