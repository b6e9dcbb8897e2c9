"""Random ground truth and detections, changed in odd ways, and pycocotools' numbers of them."""

import contextlib
import copy
import io

import hotcoco
import numpy as np
from detectron2.evaluation.coco_evaluation import COCOevalMaxDets
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from retina_plugin.workbench.benchmark.coco_evaluation import synthetic_case


def random_case():
    return synthetic_case(images=20, detections=600, classes=5)


def with_ties(truth, found):
    for x in found:
        x["score"] = round(x["score"], 1)


def with_equal_scores(truth, found):
    for x in found:
        x["score"] = 0.5


def with_crowds(truth, found):
    for x in truth["annotations"][::3]:
        x["iscrowd"] = 1


def with_crowds_alone(truth, found):
    for x in truth["annotations"]:
        x["iscrowd"] = 1


def with_ignore_flags(truth, found):
    for x in truth["annotations"][::3]:
        x["ignore"] = 1
        x["iscrowd"] = x["id"] % 2


def with_degenerate_boxes(truth, found):
    for x in [*truth["annotations"][::4], *found[::5]]:
        x["bbox"][2 + len(x) % 2] = 0.0


def with_negative_boxes(truth, found):
    for x in found[::5]:
        x["bbox"][2] *= -1


def with_areas_and_overlaps_at_the_limits(truth, found):
    """Areas of exactly 32^2 and 96^2, overlaps of exactly 0.5, 0.75 and 0.8."""
    sides = (10, 15, 16, 18, 20, 32, 48, 64, 96)
    for i, x in enumerate([*truth["annotations"], *found]):
        width, height = float(sides[i * 7 % 9]), float(sides[i * 5 % 9])
        x["bbox"] = [10.0 * (i % 4), 0.0, width, height]
        if "area" in x:
            x["area"] = width * height


def with_areas_of_masks(truth, found):
    for x in truth["annotations"]:
        x["area"] *= 0.6


def without_objects(truth, found):
    truth["annotations"].clear()


def in_no_order(truth, found):
    for part in ("images", "annotations", "categories"):
        truth[part].reverse()
    found.reverse()


def with_one_detection(truth, found):
    del found[1:]


def with_odd_values_that_boxes_do_not_need(truth, found):
    for x in truth["annotations"]:
        x["segmentation"] = ""
    for x in truth["images"]:
        x["width"] = None
    for x in truth["categories"]:
        x["name"] = 3


CHANGES = [
    with_ties,
    with_equal_scores,
    with_crowds,
    with_crowds_alone,
    with_ignore_flags,
    with_degenerate_boxes,
    with_negative_boxes,
    with_areas_and_overlaps_at_the_limits,
    with_areas_of_masks,
    without_objects,
    in_no_order,
    with_one_detection,
    with_odd_values_that_boxes_do_not_need,
]


def by_pycocotools(truth, found, max_dets=(1, 10, 100), image_ids=None):
    """The reference, on copies: it writes into both."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        kind = COCOeval if max_dets[-1] == 100 else COCOevalMaxDets
        evaluation = kind(coco, coco.loadRes(copy.deepcopy(found)), "bbox")
        evaluation.params.maxDets = list(max_dets)
        if image_ids is not None:
            evaluation.params.imgIds = image_ids
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def with_different_scores(truth, found):
    scores = np.random.default_rng(0).permutation(len(found)) + 1
    for x, score in zip(found, scores, strict=True):
        x["score"] = float(score) / (len(found) + 1)


def with_wrong_classes(truth, found):
    labels = np.random.default_rng(0).integers(len(truth["categories"]), size=len(found))
    for x, label in zip(found[::3], labels, strict=False):
        x["category_id"] = truth["categories"][label]["id"]


def scene(objects, detections, *, classes=2, images=1):
    """A case from ``(image, class, box)`` and ``(image, class, box, score)``, boxes XYWH."""
    truth = {
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(images)],
        "categories": [{"id": k, "name": "abcdefg"[k]} for k in range(classes)],
        "annotations": [
            {"id": i + 1, "image_id": image, "category_id": label, "bbox": list(box)}
            | {"area": float(box[2] * box[3]), "iscrowd": 0}
            for i, (image, label, box) in enumerate(objects)
        ],
    }
    found = [
        {"image_id": image, "category_id": label, "bbox": list(box), "score": score}
        for image, label, box, score in detections
    ]
    return truth, found


def by_hotcoco(truth, found):
    """hotcoco's evaluation, for what it has beyond pycocotools."""
    data = hotcoco.COCO(copy.deepcopy(truth))
    evaluation = hotcoco.COCOeval(data, data.loadRes(copy.deepcopy(found)), "bbox")
    evaluation.evaluate()
    return evaluation
