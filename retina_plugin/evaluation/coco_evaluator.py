"""COCO's numbers by hotcoco, a drop-in for pycocotools' ``COCOeval`` in 1 to 2 % of its time.

Of the two drop-ins that are kept up, hotcoco and faster-coco-eval (compared as of 1.3.0 and 1.8.0):

* Both gave pycocotools' precision, recall and score arrays, hotcoco to the last bit, on random data
  with crowds, ignore flags, ties, area limits, empty images, classes without objects, degenerate
  boxes and over 100 detections an image. What hotcoco counts otherwise is in :func:`obstacle`.
* 500 images, 30,000 detections, 80 classes: hotcoco 0.01 to 0.02 x pycocotools, faster-coco-eval
  0.05 to 0.16 x.
* Both need numpy alone and have wheels for Linux, macOS and Windows; hotcoco's (MIT) fit any
  Python from 3.10 on, faster-coco-eval's (Apache-2.0) are made for each version.
* Beside COCO's numbers hotcoco computes TIDE's kinds of error, confusion matrix, calibration, AP of
  groups of images and scores an image; faster-coco-eval mean IoU, AUC, best F1 and boundary IoU.
* faster-coco-eval has the longer record: 28 releases, two authors, a backend of torchmetrics and
  Ultralytics. hotcoco is one author's work of 2025 and 2026, 11 releases. So setup.py holds it
  below its next major version, and the tests compare its numbers with those of pycocotools.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
from collections.abc import Container, Iterable, Sequence
from typing import Any

import hotcoco
from detectron2.evaluation import COCOEvaluator
from detectron2.utils.file_io import PathManager

from retina_plugin.registry import unknown_name

CHOICES = ("auto", "hotcoco", "pycocotools")
LARGEST_ID = 2**63
BOX_KEYS = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")

logger = logging.getLogger(__name__)


def coco_evaluator(package: str) -> type[COCOEvaluator]:
    """Return the evaluator whose numbers ``package`` computes.

    Args:
        package: ``hotcoco``, ``pycocotools``, or ``auto``, which is hotcoco.

    Raises:
        UnknownNameError: if ``package`` is another name.
    """
    if package not in CHOICES:
        raise unknown_name("TEST.COCO_EVAL", package, CHOICES)
    return COCOEvaluator if package == "pycocotools" else HotcocoEvaluator


class HotcocoEvaluator(COCOEvaluator):
    """Detectron2's ``COCOEvaluator``: the same results, files and tables, sooner.

    Other tasks than boxes, and data that hotcoco would judge otherwise (see :func:`obstacle`), are
    left to Detectron2 and pycocotools.

    Args: those of ``COCOEvaluator``.
    """

    def _eval_predictions(
        self, predictions: list[dict[str, Any]], img_ids: Iterable[int] | None = None
    ) -> None:
        found = list(itertools.chain.from_iterable(x["instances"] for x in predictions))
        tasks = self._tasks or self._tasks_from_predictions(found)
        if not found or not self._do_evaluation or set(tasks) != {"bbox"}:
            super()._eval_predictions(predictions, img_ids)
            return
        categories = self._categories()
        reason = obstacle(self._coco_api.dataset, found, categories)
        if reason is not None:
            logger.warning(f"There are {reason}: pycocotools evaluates, not hotcoco")
            super()._eval_predictions(predictions, img_ids)
            return
        for detection in found:
            detection["category_id"] = categories[detection["category_id"]]
        if self._output_dir:
            path = f"{self._output_dir}/coco_instances_results.json"
            with PathManager.open(path, "w") as file:
                file.write(json.dumps(found))
        logger.info("Evaluating predictions with hotcoco ...")
        evaluation = evaluate_boxes(
            self._coco_api.dataset, found, max_dets=self._max_dets_per_image, image_ids=img_ids
        )
        names = self._metadata.get("thing_classes")
        self._results["bbox"] = self._derive_coco_results(evaluation, "bbox", class_names=names)

    def _categories(self) -> dict[int, int]:
        """Class of a prediction -> category id in the json."""
        classes = self._metadata.get("thing_dataset_id_to_contiguous_id")
        if classes is None:
            return {x["id"]: x["id"] for x in self._coco_api.dataset["categories"]}
        return {index: category for category, index in classes.items()}


def evaluate_boxes(
    truth: dict[str, Any],
    found: list[dict[str, Any]],
    *,
    max_dets: Sequence[int] = (1, 10, 100),
    image_ids: Iterable[int] | None = None,
) -> Any:
    """hotcoco's evaluation of boxes, its twelve numbers printed as pycocotools does.

    Args:
        truth: the content of a COCO json.
        found: detections in COCO's result format; neither of the two is changed.
        max_dets: how many detections an image count, the surest first, for AR; the last for AP.
        image_ids: the images to look at. None: all.

    Returns:
        An object with pycocotools' ``stats`` and ``eval``.
    """
    # no more than boxes need: hotcoco refuses odd values in other keys, pycocotools does not
    dataset = hotcoco.COCO(
        {
            "images": [{"id": x["id"]} for x in truth["images"]],
            "categories": [{"id": x["id"], "name": str(x["id"])} for x in truth["categories"]],
            "annotations": [{key: x[key] for key in BOX_KEYS} for x in truth["annotations"]],
        }
    )
    evaluation = hotcoco.COCOeval(dataset, dataset.loadRes(found), "bbox")
    evaluation.params.maxDets = sorted(max_dets)  # pycocotools sorts them itself
    if image_ids is not None:
        evaluation.params.imgIds = list(image_ids)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


def obstacle(
    truth: dict[str, Any], found: list[dict[str, Any]], classes: Container[int]
) -> str | None:
    """What hotcoco refuses, or counts unlike pycocotools; None where both give the same numbers.

    Args:
        truth: the content of a COCO json.
        found: detections in COCO's result format.
        classes: the ``category_id`` that a detection may have.
    """
    images, categories, boxes = (
        {x["id"] for x in truth[part]} for part in ("images", "categories", "annotations")
    )
    if not all(type(x) is int and 0 <= x < LARGEST_ID for x in images | categories | boxes):
        return "ids that are not whole numbers from 0 on"
    if 0 in boxes or len(boxes) < len(truth["annotations"]):
        return "annotations whose id is 0 or another's as well"
    if any(x.get("area") is None or x.get("iscrowd") is None for x in truth["annotations"]):
        return "annotations without area or iscrowd"
    if not all(x["image_id"] in images and x["category_id"] in classes for x in found):
        return "detections of images or classes that the data set does not have"
    if not all(math.isfinite(sum(x["bbox"]) + x["score"]) for x in found):
        return "detections whose box or score is not finite"
    return None
