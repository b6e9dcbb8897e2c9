"""What was found and what was missed on an image, as JPEG inside of the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data.detection_utils import read_image
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.functional import resize, to_pil_image

from retina_plugin.data.band_files import BANDS, BandReader
from retina_plugin.data.decoders import Decoder
from retina_plugin.drawing import draw_boxes, to_picture
from retina_plugin.evaluation.analysis.columns import read_columns
from retina_plugin.evaluation.analysis.matching import View, match
from retina_plugin.evaluation.analysis.results import Id

HIT, FALSE, MISSED, IGNORED = "#3ddc84", "#ff6a33", "#ffd42a", "#b9bfc5"
LONGEST = 640  # pixels of a picture's longer side: room for the boxes, not for bytes
LINE = 2  # pixels
QUALITY = 80
LABEL_SIZE = 14  # pixels
MOST_LABELS = 12  # more texts than that hide what they are about


@dataclass(frozen=True)
class Boxes:
    """Boxes of one image, each with its outcome's colour and a text.

    Attributes:
        xyxy: (M, 4) in pixels.
        colors: of :data:`HIT`, :data:`FALSE`, :data:`MISSED`, :data:`IGNORED`.
        labels: a text each.
    """

    xyxy: np.ndarray
    colors: list[str]
    labels: list[str]


@dataclass(frozen=True)
class Outcome:
    """An image's objects and the detections that were kept."""

    objects: Boxes
    detections: Boxes


@dataclass(frozen=True)
class Picture:
    """A JPEG as a data URI.

    Attributes:
        title: what is drawn.
        data: the URI.
        width, height: pixels.
    """

    title: str
    data: str
    width: int
    height: int


def outcomes_of(
    truth: dict[str, Any],
    found: Sequence[dict[str, Any]],
    image_ids: Sequence[Id],
    *,
    score_thresh: float,
    iou_thresh: float,
    max_detections: int,
) -> dict[Id, Outcome]:
    """What became of each box of the images, by the rule that the analysis counts by.

    Args:
        truth: content of a COCO json.
        found: detections in COCO's result format.
        image_ids: the images to look at.
        score_thresh: detections below it are left out.
        iou_thresh: of a hit.
        max_detections: that count for an image and class.
    """
    chosen = set(image_ids)
    part = {
        "images": [x for x in truth["images"] if x["id"] in chosen],
        "annotations": [x for x in truth["annotations"] if x["image_id"] in chosen],
        "categories": truth["categories"],
    }
    columns = read_columns(
        part,
        [x for x in found if x["image_id"] in chosen and x["score"] >= score_thresh],
        max_detections=max_detections,
    )
    objects, detections = columns.objects, columns.detections
    view = View(counts=np.ones(len(objects), dtype=bool))
    matches = match(columns, [view], np.array([iou_thresh]))
    kept = np.ones(len(detections), dtype=bool)
    was_found = matches.found(0, 0, kept)
    counts, hits, misses = matches.counts[0], matches.hits()[0], matches.misses()[0]
    names = [str(x.get("name", x["id"])) for x in columns.classes]
    several = len(names) > 1
    outcomes = {}
    for row, image in enumerate(columns.images):
        own = np.flatnonzero(objects.image == row)
        seen = np.flatnonzero(detections.image == row)
        seen = seen[np.argsort(detections.score[seen], kind="stable")]  # the surest above others
        outcomes[image["id"]] = Outcome(
            Boxes(
                _xyxy(objects.box[own]),
                [IGNORED if not counts[i] else HIT if was_found[i] else MISSED for i in own],
                [names[objects.label[i]] if several else "" for i in own],
            ),
            Boxes(
                _xyxy(detections.box[seen]),
                [HIT if hits[i] else FALSE if misses[i] else IGNORED for i in seen],
                [
                    f"{names[detections.label[i]]} · {detections.score[i]:.2f}"
                    if several
                    else f"{detections.score[i]:.2f}"
                    for i in seen
                ],
            ),
        )
    return outcomes


def reader_of(config: dict[str, Any]) -> Callable[[Path], Tensor]:
    """What gives an image file as ``(3, H, W)`` uint8 RGB.

    Args:
        config: of the run, whose ``INPUT.FORMAT`` says what the files are; {} for ordinary images.
    """
    input_format = (config.get("INPUT") or {}).get("FORMAT", "BGR")
    decode: Decoder = read_image
    if input_format == BANDS:
        decode = BandReader(channels=len(config["MODEL"]["PIXEL_MEAN"]))

    def read(file: Path) -> Tensor:
        pixels = decode(str(file), input_format)
        return to_picture(torch.from_numpy(pixels.copy()).permute(2, 0, 1), input_format)

    return read


def draw(image: Tensor, boxes: Boxes, title: str) -> Picture:
    """The boxes on the image, as large as the page shows it.

    Args:
        image: ``(3, H, W)`` uint8 RGB.
        boxes: in its pixels.
        title: what they are.
    """
    scale = LONGEST / max(image.shape[1:])
    size = [max(1, round(side * scale)) for side in image.shape[1:]]
    image = resize(image, size, antialias=True)
    xyxy = torch.from_numpy(boxes.xyxy * scale)
    picture = to_pil_image(draw_boxes(image, xyxy, boxes.colors, width=LINE))
    if len(boxes.labels) <= MOST_LABELS:
        for corner, label, color in zip(xyxy, boxes.labels, boxes.colors, strict=True):
            _tag(picture, label, corner.tolist(), color)
    return encode(picture, title)


def _tag(picture: Image.Image, label: str, box: list[float], color: str) -> None:
    """The label on its box's upper edge, on the box's colour; inside of it at the picture's top."""
    if not label:
        return
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=LABEL_SIZE)
    left, top, right, bottom = pen.textbbox((0, 0), label, font=font)
    width, height = right - left + 8, bottom - top + 7
    x = min(max(box[0] - 1, 0), max(picture.width - width, 0))
    y = box[1] - height if box[1] >= height else max(box[1], 0)
    pen.rectangle((x, y, x + width, y + height), fill=color)
    pen.text((x + 4 - left, y + 3 - top), label, "#14171a", font=font)


def encode(picture: Image.Image, title: str) -> Picture:
    """A picture as JPEG in the page."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY, optimize=True)
    data = base64.b64encode(file.getvalue()).decode()
    return Picture(title, f"data:image/jpeg;base64,{data}", *picture.size)


def _xyxy(box: np.ndarray) -> np.ndarray:
    return np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], axis=1)
