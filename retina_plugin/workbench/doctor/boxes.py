"""Boxes that are drawn twice, leave their image, or are more than are counted."""

from __future__ import annotations

from collections.abc import Sequence
from logging import INFO, WARNING
from typing import Any

from detectron2.config import CfgNode
from detectron2.structures import BoxMode

from retina_plugin.data.checks import CheckedSet
from retina_plugin.data.findings import CLEAN, Findings
from retina_plugin.workbench.doctor.paste import pasted

COCOS_DETECTIONS = 100  # of an image, the most that COCO's AP counts
TOLERANCE = 1.0  # pixels that a box may stick out by: some tools count edges so

Record = dict[str, Any]


def check_boxes(cfg: CfgNode, sets: Sequence[CheckedSet], findings: Findings) -> None:
    """What no single box shows, and what is no mistake but should be known."""
    for checked in sets:
        for split in checked.splits:
            where = f"DATASETS.{split} '{checked.name}'"
            for record in checked.records:
                objects = [x for x in record.get("annotations", ()) if not x.get("iscrowd", 0)]
                _check_twice(record, objects, where, split, findings)
                _check_outside(record, objects, where, findings)
                if split == "TEST":
                    _check_number(cfg, record, len(objects), where, findings)


def repeated(annotations: Sequence[Record]) -> list[int]:
    """Indices of the annotations that say what an earlier one of the image says."""
    seen, found = set(), []
    for index, x in enumerate(annotations):
        key = (*map(float, x["bbox"]), x["category_id"], x.get("iscrowd", 0))
        if key in seen:
            found.append(index)
        seen.add(key)
    return found


def _check_twice(
    record: Record, objects: list[Record], where: str, split: str, findings: Findings
) -> None:
    for index in repeated(objects):
        example = f"{_image(record)}: {list(objects[index]['bbox'])}"
        if split == "TRAIN":
            why = "They count twice in the loss."
        else:
            why = "One detection matches one of them: the other counts as missed."
        findings.add(WARNING, where, "boxes that are there twice", "", example, why=why, fix=CLEAN)


def _check_outside(record: Record, objects: list[Record], where: str, findings: Findings) -> None:
    width, height = record.get("width"), record.get("height")
    if not (width and height):
        return
    for x in objects:
        x0, y0, x1, y1 = map(float, x["bbox"])
        if x["bbox_mode"] == BoxMode.XYWH_ABS:  # there are only two: find_problems has looked
            x1, y1 = x0 + x1, y0 + y1
        out = max(-x0, -y0, x1 - width, y1 - height)
        touches = x0 < width and y0 < height and x1 > 0 and y1 > 0
        if touches and out > TOLERANCE:
            what = "boxes partly outside their image"
            example = f"{_image(record)}: {list(x['bbox'])} in {width}x{height}"
            findings.add(INFO, where, what, "In training they are cut at its edge.", example)


def _check_number(
    cfg: CfgNode, record: Record, number: int, where: str, findings: Findings
) -> None:
    most = cfg.TEST.DETECTIONS_PER_IMAGE
    if number > most > 0:
        what = f"images with more boxes than TEST.DETECTIONS_PER_IMAGE {most}"
        fix = pasted("TEST.DETECTIONS_PER_IMAGE", max(300, -(-3 * number // 200) * 100))
        why = "What is beyond it counts as missed."
        findings.add(WARNING, where, what, "", f"{_image(record)}: {number}", why=why, fix=fix)
    elif number > COCOS_DETECTIONS:
        what = (
            f"images with more boxes than the {COCOS_DETECTIONS} detections that COCO's AP counts"
        )
        findings.add(INFO, where, what, "", f"{_image(record)}: {number}")


def _image(record: Record) -> str:
    return f"image {record.get('image_id')} ({record.get('file_name')})"
