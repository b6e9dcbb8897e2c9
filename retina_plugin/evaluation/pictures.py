"""Pictures of ground truth and predictions side by side."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils import read_image
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from retina_plugin.data.decoders import Decoder
from retina_plugin.drawing import (
    GROUND_TRUTH,
    IGNORED,
    PREDICTION,
    below,
    beside,
    draw_boxes,
    to_picture,
)

_TITLE_HEIGHT = 32


def draw_pairs(
    dataset_name: str,
    predictions_json: str | Path,
    output: str | Path,
    *,
    max_images: int = 3,
    score_thresh: float = 0.4,
    scale: float = 2.0,
    decoder: Decoder = read_image,
    input_format: str = "RGB",
) -> Path:
    """Write one PNG: a row an image, ground truth on the left, predictions on the right.

    The images with the most boxes are shown. Boxes that count for nothing (crowd) are grey.

    Args:
        dataset_name: a registered COCO data set.
        predictions_json: detections in COCO's result format, as COCOEvaluator writes them.
        output: the picture's path.
        max_images: rows.
        score_thresh: predictions below it are not drawn.
        scale: of the images in the picture.
        decoder: what reads the image files, see ``build_decoder``.
        input_format: what it is asked for, ``INPUT.FORMAT``.

    Returns:
        ``output``, as a path.
    """
    metadata = MetadataCatalog.get(dataset_name)
    records = sorted(DatasetCatalog.get(dataset_name), key=lambda r: -len(r["annotations"]))
    truth = _by_image(json.loads(Path(metadata.json_file).read_text())["annotations"])
    found = _by_image(json.loads(Path(predictions_json).read_text()))
    rows = []
    for record in records[:max_images]:
        pixels = decoder(record["file_name"], input_format)
        image = to_picture(torch.from_numpy(pixels.copy()).permute(2, 0, 1), input_format)
        shown = [a for a in found[record["image_id"]] if a["score"] >= score_thresh]
        shown.sort(key=lambda a: a["score"])  # the surest are drawn last, above the others
        left = _draw(image, truth[record["image_id"]], metadata, GROUND_TRUTH, scale)
        right = _draw(image, shown, metadata, PREDICTION, scale)
        rows.append(beside([left, right]))
    titles = ("ground truth", f"predictions, score >= {score_thresh:g}")
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    _titled(to_pil_image(below(rows)), titles).save(output)
    return output


def _by_image(annotations: list[dict[str, Any]]) -> dict[Any, list[dict[str, Any]]]:
    grouped = defaultdict(list)
    for annotation in annotations:
        grouped[annotation["image_id"]].append(annotation)
    return grouped


def _draw(
    image: Tensor, annotations: list[dict[str, Any]], metadata: Any, color: str, scale: float
) -> Tensor:
    """The image with its annotations' boxes; class names where there are several classes."""
    xywh = torch.tensor(np.array([a["bbox"] for a in annotations]).reshape(-1, 4))
    boxes = torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1)
    colors = [IGNORED if a.get("iscrowd") else color for a in annotations]
    labels = None
    if len(metadata.thing_classes) > 1:
        to_class = metadata.thing_dataset_id_to_contiguous_id
        labels = [metadata.thing_classes[to_class[a["category_id"]]] for a in annotations]
    return draw_boxes(image, boxes, colors, labels, scale=scale)


def _titled(picture: Image.Image, titles: tuple[str, ...]) -> Image.Image:
    """The picture under a white strip with one title a column."""
    framed = Image.new("RGB", (picture.width, picture.height + _TITLE_HEIGHT), "white")
    framed.paste(picture, (0, _TITLE_HEIGHT))
    draw = ImageDraw.Draw(framed)
    for column, title in enumerate(titles):
        at = (6 + column * picture.width // len(titles), 5)
        draw.text(at, title, "black", font=ImageFont.load_default(size=18))
    return framed
