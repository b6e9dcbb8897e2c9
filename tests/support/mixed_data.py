"""Mapped records of bright boxes on black, whose objects say where they are from."""

from typing import Any

import numpy as np
import torch
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints, PolygonMasks


def mapped(
    boxes: Any, *, size: tuple[int, int] = (60, 80), image_id: int = 0, masks: str = ""
) -> dict[str, Any]:
    """What a mapper makes of an image; object ``i`` has the grey ``200 + i``."""
    height, width = size
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    for index, (x0, y0, x1, y1) in enumerate(boxes.int().tolist()):
        image[:, y0:y1, x0:x1] = 200 + index
    count = len(boxes)
    instances = Instances(size, gt_boxes=Boxes(boxes), gt_classes=torch.arange(count))
    instances.gt_weight = torch.arange(count) / 2 + image_id
    instances.gt_name = [f"{image_id}.{index}" for index in range(count)]
    if masks and count:
        instances.gt_masks = polygons(boxes) if masks == "polygon" else bits(boxes, size)
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        points = torch.cat([centre, torch.full((count, 1), 2.0)], dim=1)
        instances.gt_keypoints = Keypoints(points[:, None])
    return {
        "file_name": f"{image_id}.png",
        "image_id": image_id,
        "height": height,
        "width": width,
        "image": image,
        "instances": instances,
    }


def bits(boxes: torch.Tensor, size: tuple[int, int]) -> BitMasks:
    tensor = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(tensor, boxes.int().tolist(), strict=True):
        mask[y0:y1, x0:x1] = True
    return BitMasks(tensor)


def polygons(boxes: torch.Tensor) -> PolygonMasks:
    return PolygonMasks(
        [[np.array([x0, y0, x1, y0, x1, y1, x0, y1])] for x0, y0, x1, y1 in boxes.tolist()]
    )


def same_records(first: dict[str, Any], second: dict[str, Any]) -> bool:
    a, b = (record["instances"].get_fields() for record in (first, second))
    return (
        torch.equal(first["image"], second["image"])
        and list(a) == list(b)
        and torch.equal(a["gt_boxes"].tensor, b["gt_boxes"].tensor)
        and torch.equal(a["gt_weight"], b["gt_weight"])
        and a["gt_name"] == b["gt_name"]
    )
