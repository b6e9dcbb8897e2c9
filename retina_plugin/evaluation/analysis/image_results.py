"""Each image at the threshold, the worst and the best."""

from __future__ import annotations

import numpy as np

from retina_plugin.evaluation.analysis.breakdowns import Id, ImageResult
from retina_plugin.evaluation.analysis.coco_evaluation import Verdicts
from retina_plugin.evaluation.analysis.columns import Columns


def image_results(columns: Columns, verdicts: Verdicts) -> list[ImageResult]:
    """Hits, misses and objects not found of every image."""
    number = len(columns.images)
    found, truth = columns.detections, columns.objects
    right = np.bincount(found.image[verdicts.hit & verdicts.kept], minlength=number)
    wrong = np.bincount(found.image[verdicts.miss & verdicts.kept], minlength=number)
    objects = np.bincount(truth.image[verdicts.counts], minlength=number)
    results = []
    for i, image in enumerate(columns.images):
        tp, fp, fn = int(right[i]), int(wrong[i]), int(objects[i] - right[i])
        results.append(
            ImageResult(
                image_id=image["id"],
                file_name=image.get("file_name"),
                objects=int(objects[i]),
                true_positives=tp,
                false_positives=fp,
                false_negatives=fn,
                f1=2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 1.0,
            )
        )
    return results


def worst_images(results: list[ImageResult], most: int) -> list[Id]:
    """Lowest F1 first, most mistakes first in a tie; none without a mistake."""
    wrong = [x for x in results if x.f1 < 1]
    wrong.sort(key=lambda x: (x.f1, -(x.false_positives + x.false_negatives)))
    return [x.image_id for x in wrong[:most]]


def best_images(results: list[ImageResult], most: int) -> list[Id]:
    """Highest F1 first, most objects first in a tie; none where nothing was hit."""
    right = [x for x in results if x.true_positives]
    right.sort(key=lambda x: (-x.f1, -x.objects))
    return [x.image_id for x in right[:most]]
