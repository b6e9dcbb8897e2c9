"""Boxes drawn on images, by torchvision (Detectron2's Visualizer would need OpenCV)."""

from __future__ import annotations

from collections.abc import Sequence
from colorsys import hsv_to_rgb
from typing import Any

import numpy as np
import torch
from detectron2.data.detection_utils import convert_image_to_rgb
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage, has_event_storage
from PIL import Image, ImageColor, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import pil_to_tensor, to_pil_image
from torchvision.utils import draw_bounding_boxes

GROUND_TRUTH, IGNORED, PREDICTION = "lime", "silver", "orange"
_GAP = 6
_LABEL_SIZE = 16  # pixels
_PICTURE_BOXES = 20
_LINES_PER_SIDE = 500  # how many lines' widths the longer side has
_LINES_PER_BOX = 16
_TAGS_PER_SIDE = 45
_TAG_OF_BOX, _CROWD = 0.8, 12
_SMALLEST_TAG = 10  # pixels
_FIRST_HUE, _GOLDEN_SECTION = 0.1, 0.618034  # orange is the first
_LEAST_SHARE = 0.25  # of the best score: once a detector knows, its guesses are clutter
TRAINING_PICTURE = f"ground truth | {_PICTURE_BOXES} best predictions"


def draw_boxes(
    image: Tensor,
    boxes: Tensor,
    colors: Sequence[str] | str,
    labels: Sequence[str] | None = None,
    *,
    scale: float = 1.0,
    width: int | None = None,
) -> Tensor:
    """The image, enlarged, with boxes on it.

    Args:
        image: ``(3, H, W)`` uint8 RGB.
        boxes: ``(M, 4)`` in the image's pixels; those without width or height are left out.
        colors: one for all, or one a box.
        labels: a text in each box's upper left corner.
        scale: of the picture.
        width: of the lines, in its pixels; by default the scale.

    Returns:
        ``(3, scale * H, scale * W)`` uint8.
    """
    if scale != 1.0:
        image = F.interpolate(image[None], scale_factor=scale, mode="bilinear")[0]
    kept = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(dim=1).nonzero().flatten().tolist()
    if not kept:
        return image.clone()
    boxes, width = boxes[kept] * scale, width or max(1, round(scale))
    colors = colors if isinstance(colors, str) else [colors[i] for i in kept]
    drawn = draw_bounding_boxes(image, boxes, colors=colors, width=width)
    return drawn if labels is None else _write(drawn, boxes, [labels[i] for i in kept], colors)


def _write(
    image: Tensor, boxes: Tensor, labels: Sequence[str], colors: Sequence[str] | str
) -> Tensor:
    """The labels in the boxes' upper left corners, outlined to be legible on anything."""
    picture = to_pil_image(image)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=_LABEL_SIZE)
    for index, (label, box) in enumerate(zip(labels, boxes.tolist(), strict=True)):
        color = colors if isinstance(colors, str) else colors[index]
        at = (box[0] + 3, box[1] + 1)
        draw.text(at, label, color, font=font, stroke_width=2, stroke_fill="black")
    return pil_to_tensor(picture)


def draw_detections(
    image: Tensor,
    boxes: Tensor,
    classes: Sequence[int],
    labels: Sequence[str],
    *,
    scale: float = 1.0,
) -> Tensor:
    """The image with boxes in their classes' colours and tags on them, lines as it is large.

    Args:
        image: ``(3, H, W)`` uint8 RGB.
        boxes: ``(M, 4)`` in the image's pixels, the surest first: those lie above the others.
        classes: 0 to K - 1, one a box.
        labels: a text each.
        scale: of the picture.

    Returns:
        ``(3, scale * H, scale * W)`` uint8.
    """
    order = [i for i in range(len(labels)) if (boxes[i, 2:] > boxes[i, :2]).all()][::-1]
    colors = [class_color(classes[i]) for i in order]
    boxes = boxes[order]
    width = round(scale * max(image.shape[1:]) / _LINES_PER_SIDE)
    if order:  # of small objects a thick line would hide half
        width = min(
            width, round(scale * float((boxes[:, 2:] - boxes[:, :2]).median()) / _LINES_PER_BOX)
        )
    drawn = draw_boxes(image, boxes, colors, scale=scale, width=max(2, width))
    return tag(drawn, boxes * scale, [labels[i] for i in order], colors)


def class_color(index: int) -> str:
    """A bright colour, the same for a class in every picture, neighbours far apart: ``#rrggbb``."""
    hue = (_FIRST_HUE + index * _GOLDEN_SECTION) % 1
    return "#" + "".join(f"{round(255 * x):02x}" for x in hsv_to_rgb(hue, 0.85, 1.0))


def tag(image: Tensor, boxes: Tensor, labels: Sequence[str], colors: Sequence[str]) -> Tensor:
    """The labels on a ground of the boxes' colours, above their upper edges where there is room.

    Args:
        image: ``(3, H, W)`` uint8 RGB.
        boxes: ``(M, 4)`` in its pixels.
        labels, colors: one a box.
    """
    if not len(boxes):
        return image
    picture = to_pil_image(image)
    draw = ImageDraw.Draw(picture)
    size = max(_SMALLEST_TAG, round(max(picture.size) / _TAGS_PER_SIDE))
    room = _TAG_OF_BOX * float((boxes[:, 2] - boxes[:, 0]).median())
    font = ImageFont.load_default(size=size)
    needed = max(draw.textlength(label, font=font) for label in labels)
    if len(boxes) > _CROWD:  # of many small objects a tag shall not hide the neighbours
        font = ImageFont.load_default(size=max(_SMALLEST_TAG, min(size, size * room / needed)))
    height = round(1.25 * font.size)
    for label, box, color in zip(labels, boxes.tolist(), colors, strict=True):
        length = draw.textlength(label, font=font) + font.size / 2
        x = min(max(0, box[0]), max(0, picture.width - length))
        y = box[1] - height if box[1] >= height else box[1]
        draw.rectangle((x, y, x + length, y + height), fill=color)
        middle = (x + font.size / 4, y + height / 2)
        draw.text(middle, label, _on(color), font=font, anchor="lm")
    return pil_to_tensor(picture)


def _on(color: str) -> str:
    """Black or white, whichever is legible on the colour."""
    red, green, blue = ImageColor.getrgb(color)
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "white"


def beside(images: Sequence[Tensor]) -> Tensor:
    """``(3, H_i, W_i)`` each -> one picture, left to right, white between and below."""
    height = max(image.shape[1] for image in images)
    parts = [
        F.pad(image, (0, _GAP if i + 1 < len(images) else 0, 0, height - image.shape[1]), value=255)
        for i, image in enumerate(images)
    ]
    return torch.cat(parts, dim=2)


def below(images: Sequence[Tensor]) -> Tensor:
    """``(3, H_i, W_i)`` each -> one picture, top to bottom, white between and to the right."""
    return beside([image.transpose(1, 2) for image in images]).transpose(1, 2)


def to_picture(image: Tensor, input_format: str) -> Tensor:
    """An image as people see it: ``(C, H, W) -> (3, H, W)`` uint8 RGB.

    Bands are no colours: the first three are shown as red, green and blue, of fewer the first as
    grey, each stretched so that its 2nd to 98th percentile spans 0 to 255.

    Args:
        image: of any type and number of channels.
        input_format: ``INPUT.FORMAT``; channels that are not this format's are bands.
    """
    if len(image) == _channels_of(input_format):
        rgb = convert_image_to_rgb(image.permute(1, 2, 0), input_format)
        return torch.from_numpy(rgb.astype("uint8").copy()).permute(2, 0, 1)
    bands = image[: 3 if len(image) >= 3 else 1].cpu().numpy().astype(np.float64)
    low, high = np.percentile(bands, [2, 98], axis=(1, 2), keepdims=True)
    stretched = (bands - low) / np.maximum(high - low, 1e-12)
    picture = torch.from_numpy((stretched.clip(0, 1) * 255).astype(np.uint8))
    return picture.expand(3, -1, -1).contiguous()


def _channels_of(input_format: str) -> int:
    """Channels of a format of Detectron2's ``read_image``; 0 if it is none."""
    if input_format in ("BGR", "YUV-BT.601"):
        return 3
    try:
        return Image.getmodebands(input_format)
    except KeyError:
        return 0


def picture_is_due(period: int) -> bool:
    """Whether a training loop is at a step that ``VIS_PERIOD`` asks a picture of."""
    if period <= 0 or not has_event_storage():
        return False
    return get_event_storage().iter % period == 0


def training_picture(given: dict[str, Any], found: Instances, input_format: str) -> Tensor:
    """An input's ground truth, beside it the best predictions: ``(3, H, W)`` uint8.

    Predictions far less sure than the best one are left out.

    Args:
        given: Detectron2's input, with ``image`` and ``instances``.
        found: detections with scores, the best first, in the pixels of ``image``.
        input_format: channel order of ``image``.
    """
    image = to_picture(given["image"], input_format)
    scores = found.scores[:_PICTURE_BOXES]
    best = found.pred_boxes.tensor[:_PICTURE_BOXES][scores >= _LEAST_SHARE * scores[:1]].cpu()
    left = draw_boxes(image, given["instances"].gt_boxes.tensor.cpu(), GROUND_TRUTH)
    return beside([left, draw_boxes(image, best, PREDICTION)])
