"""IoU of detections and objects of an image, whatever their classes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pycocotools import mask

from retina_plugin.evaluation.analysis.columns import Columns


def overlaps_by_image(
    columns: Columns, detections: np.ndarray, objects: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each image with both: rows of detections (the surest first), of objects, and their IoU.

    Args:
        columns: the case.
        detections: (D,) bool, which.
        objects: (M,) bool, which.
    """
    found, truth = columns.detections, columns.objects
    rows = np.flatnonzero(detections)
    rows = rows[np.lexsort((-found.score[rows], found.image[rows]))]
    others = np.flatnonzero(objects)
    others = others[np.argsort(truth.image[others], kind="stable")]
    edges = np.arange(len(columns.images) + 1)
    starts = np.searchsorted(found.image[rows], edges)
    other_starts = np.searchsorted(truth.image[others], edges)
    both = (np.diff(starts) > 0) & (np.diff(other_starts) > 0)
    for image in np.flatnonzero(both):
        d = rows[starts[image] : starts[image + 1]]
        o = others[other_starts[image] : other_starts[image + 1]]
        yield d, o, mask.iou(found.box[d], truth.box[o], np.zeros(len(o), dtype=np.uint8))
