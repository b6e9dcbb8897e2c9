"""The boxes of single images with what became of them: what a picture of right and wrong shows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retina_plugin.evaluation.analysis.breakdowns import Id, Number
from retina_plugin.evaluation.analysis.coco_evaluation import Evaluation
from retina_plugin.evaluation.analysis.columns import class_names, corners, read_columns
from retina_plugin.evaluation.analysis.error_kinds import DETECTED, find_mistakes

FOUND, MISSED, CROWD = "found", "missed", "crowd"  # of an object
HIT, WRONG, IGNORED = "hit", "wrong", "ignored"  # of a detection


@dataclass(kw_only=True)
class MarkedBox:
    """A box and what became of it.

    Attributes:
        box: ``[x0, y0, x1, y1]`` in pixels.
        class_name: in the json.
        verdict: of an object ``found``, ``missed`` or ``crowd``; of a detection ``hit``, ``wrong``
            or ``ignored`` (on a crowd).
        score: of a detection; None of an object.
        mistake: of a wrong detection, its kind after TIDE.
    """

    box: list[float]
    class_name: str
    verdict: str
    score: Number = None
    mistake: str | None = None


def mark_boxes(
    truth: dict[str, Any],
    detections: Sequence[dict[str, Any]],
    image_ids: Collection[Id],
    *,
    score_thresh: float | None,
    iou_thresh: float = 0.5,
    max_detections: int = 100,
) -> dict[Id, list[MarkedBox]]:
    """The objects and the detections kept of some images, with the verdicts of the analysis.

    Args:
        truth: the content of a COCO json.
        detections: in COCO's result format.
        image_ids: which images.
        score_thresh: ``Settings.score_thresh`` of the analysis; None keeps no detection.
        iou_thresh: as in the analysis.
        max_detections: as in the analysis.

    Returns:
        For each image its objects in the order of the json, then its detections, the surest last,
        so that they are drawn above the others.

    Raises:
        ValueError: an image is not in the json.
    """
    wanted = set(image_ids)
    unknown = wanted - {x["id"] for x in truth["images"]}
    if unknown:
        raise ValueError(f"images {sorted(unknown, key=str)[:5]} are not in the ground truth")
    columns = read_columns(
        {
            **truth,
            "images": [x for x in truth["images"] if x["id"] in wanted],
            "annotations": [x for x in truth["annotations"] if x["image_id"] in wanted],
        },
        [x for x in detections if x["image_id"] in wanted],
        max_detections=max_detections,
    )
    objects, found = columns.objects, columns.detections
    evaluation = Evaluation(columns, iou_thresh)
    verdicts = evaluation.keep(evaluation.verdicts(), score_thresh)
    found_objects = verdicts.found
    mistakes = find_mistakes(columns, verdicts, iou_thresh)
    names = class_names(columns)
    marked: list[list[MarkedBox]] = [[] for _ in columns.images]
    for i in range(len(objects)):
        verdict = CROWD if objects.crowd[i] else FOUND if found_objects[i] else MISSED
        marked[objects.image[i]].append(
            MarkedBox(
                box=corners(objects.box[i]), class_name=names[objects.label[i]], verdict=verdict
            )
        )
    kept = np.flatnonzero(verdicts.kept)
    for i in kept[np.argsort(found.score[kept], kind="stable")]:
        verdict = HIT if verdicts.hit[i] else WRONG if verdicts.miss[i] else IGNORED
        marked[found.image[i]].append(
            MarkedBox(
                box=corners(found.box[i]),
                class_name=names[found.label[i]],
                verdict=verdict,
                score=float(found.score[i]),
                mistake=DETECTED[mistakes.kind[i]] if verdict == WRONG else None,
            )
        )
    return {image["id"]: marked[i] for i, image in enumerate(columns.images)}
