"""Load a COCO json with additional keys of its images and annotations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from logging import ERROR
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.data.datasets import load_coco_json

from retina_plugin.data.findings import Findings
from retina_plugin.data.object_fields import KEY as ANNOTATION_KEYS
from retina_plugin.data.object_fields import NEUTRAL, is_number_or_list

IMAGE_KEYS = "DATASETS.COCO.EXTRA_IMAGE_KEYS"
# keys of Detectron2's records, or of the inputs that its mappers make of them
TAKEN = {
    "file_name",
    "height",
    "width",
    "image_id",
    "annotations",
    "image",
    "instances",
    "proposals",
    "sem_seg",
    "sem_seg_file_name",
    "tile",
}

Record = dict[str, Any]


class ExtraKeys(NamedTuple):
    """Keys to load besides the standard ones.

    Attributes:
        images: keys of the json's images, which become keys of the records.
        annotations: keys of its annotations; see ``object_fields``.
    """

    images: tuple[str, ...] = ()
    annotations: tuple[str, ...] = ()


def load_coco_records(path: Path, images: Path, name: str, extra: ExtraKeys) -> list[Record]:
    """``load_coco_json`` with additional keys.

    Args:
        path: path of the json.
        images: folder of the images.
        name: name of the data set.
        extra: the additional keys.

    Raises:
        DataError: if an image lacks a key, no annotation has a key, a value is not a number where
            it must be one, or a key is one of Detectron2's own. Lists the first of each.
    """
    findings = Findings()
    for key in sorted(TAKEN & set(extra.images)):
        what = f"'{key}' is a key of Detectron2's records"
        findings.add(ERROR, IMAGE_KEYS, what, "Rename it in the json, or drop it here.")
    findings.raise_errors()
    records = load_coco_json(str(path), str(images), name, list(extra.annotations))
    if extra.images:
        _add_image_keys(records, path, extra.images, findings)
    for key in extra.annotations:
        _check_annotations(records, path, key, findings)
    findings.raise_errors()
    return records


def _add_image_keys(
    records: list[Record], path: Path, keys: Sequence[str], findings: Findings
) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    by_id = {image["id"]: image for image in content["images"]}
    for record in records:
        image = by_id[record["image_id"]]
        for key in keys:
            if key in image:
                record[key] = image[key]
                continue
            what = f"images without '{key}', which {IMAGE_KEYS} or DATALOADER.GROUP_FIELD names"
            example = f"image {record['image_id']} ({image['file_name']})"
            findings.add(ERROR, str(path), what, "Add it to every image.", example)


def _check_annotations(records: list[Record], path: Path, key: str, findings: Findings) -> None:
    found, total = 0, 0
    for record in records:
        for index, annotation in enumerate(record["annotations"], start=1):
            if annotation.get("iscrowd", 0):
                continue  # crowds are not objects
            total += 1
            found += key in annotation
            if is_number_or_list(annotation.get(key, NEUTRAL.get(key))):
                continue
            value = repr(annotation[key]) if key in annotation else "missing"
            what = f"annotations whose '{key}' is not a finite number or a list of them"
            advice = f"Correct them, or remove the key from {ANNOTATION_KEYS}."
            example = f"annotation {index} of image {record['image_id']}: {value}"
            findings.add(ERROR, str(path), what, advice, example)
    if total and not found and key in NEUTRAL:
        what = f"no annotation has '{key}', which {ANNOTATION_KEYS} names"
        findings.add(ERROR, str(path), what, "Check its spelling in the json.")
