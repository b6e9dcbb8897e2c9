"""COCO's evaluation by hotcoco against pycocotools', on synthetic detections."""

from __future__ import annotations

import contextlib
import copy
import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from retina_plugin.evaluation.coco_evaluator import evaluate_boxes
from retina_plugin.workbench.benchmark.rows import PLUGIN, STOCK, Row, interleave

SIDE = 640  # pixels, of the square images
SMALLEST, LARGEST = 8.0, 400.0  # sides of the boxes in pixels
OBJECTS = 7  # an image on average, as in COCO
CROWDS = 0.02  # of the objects
NEAR = 0.5  # of the detections that lie on an object; the rest lie anywhere


def compare(
    images: int = 500, detections: int = 30_000, classes: int = 80, repeats: int = 5
) -> dict[str, Any]:
    """Seconds from a loaded json and a list of detections to the twelve numbers.

    Returns:
        ``samples``, ``median`` and ``ratio_to_stock`` (median, min and max over the repeats) as of
        :class:`Row`, and ``max_difference``, the largest of the twelve numbers' differences.
    """
    truth, found = synthetic_case(images, detections, classes)
    runs = {
        STOCK: lambda: _timed(_evaluate_by_pycocotools, truth, found),
        PLUGIN: lambda: _timed(lambda coco, x: evaluate_boxes(coco.dataset, x), truth, found),
    }
    results = interleave(runs, repeats)
    samples = {name: [seconds for seconds, _ in of_one] for name, of_one in results.items()}
    stats = [np.array([numbers for _, numbers in results[name]]) for name in runs]
    row = Row("COCO evaluation", "s", samples)
    return {**row.as_dict(), "max_difference": float(np.abs(stats[0] - stats[1]).max())}


def synthetic_case(
    images: int, detections: int, classes: int, seed: int = 0
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A COCO json's content and detections in COCO's result format.

    Half the detections lie on an object, more or less exactly, the rest anywhere; scores have three
    digits, so that some are equal. Every tenth image and the last of several classes have no
    object; some objects are crowds.
    """
    random = np.random.default_rng(seed)
    objects = images * OBJECTS
    with_objects = [i for i in range(images) if i % 10 < 9]
    image = random.choice(with_objects, objects)
    label = random.integers(max(classes - 1, 1), size=objects)
    box = _boxes(random, objects)
    truth = {
        "info": {},
        "images": [
            {"id": i + 1, "file_name": f"{i}.jpg", "height": SIDE, "width": SIDE}
            for i in range(images)
        ],
        "annotations": [
            {
                "id": i + 1,
                "image_id": int(image[i]) + 1,
                "category_id": int(label[i]) + 1,
                "bbox": box[i].tolist(),
                "area": float(box[i, 2] * box[i, 3]),
                "iscrowd": int(random.random() < CROWDS),
            }
            for i in range(objects)
        ],
        "categories": [{"id": k + 1, "name": f"class {k}"} for k in range(classes)],
    }
    near = random.random(detections) < NEAR
    of = random.integers(objects, size=detections)
    image = np.where(near, image[of], random.integers(images, size=detections))
    label = np.where(near, label[of], random.integers(classes, size=detections))
    shaken = box[of] * random.uniform(0.85, 1.15, (detections, 4))
    box = np.where(near[:, None], shaken, _boxes(random, detections))
    score = random.random(detections).round(3)
    found = [
        {
            "image_id": int(image[i]) + 1,
            "category_id": int(label[i]) + 1,
            "bbox": box[i].tolist(),
            "score": float(score[i]),
        }
        for i in range(detections)
    ]
    return truth, found


def _boxes(random: np.random.Generator, count: int) -> np.ndarray:
    """``(count, 4)`` XYWH within the image, sides log-uniform."""
    size = np.exp(random.uniform(np.log(SMALLEST), np.log(LARGEST), (count, 2)))
    return np.concatenate([random.random((count, 2)) * (SIDE - size), size], axis=1)


def _timed(
    evaluate: Callable[[COCO, list[dict[str, Any]]], Any],
    truth: dict[str, Any],
    found: list[dict[str, Any]],
) -> tuple[float, np.ndarray]:
    """Seconds of one evaluation, and its numbers; on copies, since pycocotools writes into both."""
    truth, found = copy.deepcopy(truth), [dict(x) for x in found]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        begin = time.perf_counter()
        evaluation = evaluate(coco, found)
        return time.perf_counter() - begin, np.array(evaluation.stats)


def _evaluate_by_pycocotools(coco: COCO, found: list[dict[str, Any]]) -> COCOeval:
    evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation
