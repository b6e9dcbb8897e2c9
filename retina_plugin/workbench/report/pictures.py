"""What was found and what was missed on an image, as JPEG inside of the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.data.detection_utils import read_image
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import resize, to_pil_image

from retina_plugin.data.band_files import BANDS, BandReader
from retina_plugin.data.decoders import Decoder
from retina_plugin.drawing import draw_boxes, tag, to_picture
from retina_plugin.evaluation.analysis.marks import FOUND, HIT, MISSED, WRONG, MarkedBox

GREEN, ORANGE, YELLOW, GREY = "#3ddc84", "#ff6a33", "#ffd42a", "#b9bfc5"
COLORS = {FOUND: GREEN, HIT: GREEN, WRONG: ORANGE, MISSED: YELLOW}  # what does not count is grey
LONGEST = 640  # pixels of a picture's longer side: room for the boxes, not for bytes
LINE = 2  # pixels
QUALITY = 80
MOST_LABELS = 12  # more texts than that hide what they are about


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


def draw(image: Tensor, boxes: Sequence[MarkedBox], title: str, *, named: bool) -> Picture:
    """The boxes on the image, coloured by their verdicts, as large as the page shows it.

    Args:
        image: ``(3, H, W)`` uint8 RGB.
        boxes: in its pixels; later ones lie above earlier ones.
        title: what they are.
        named: with the names of their classes.
    """
    scale = LONGEST / max(image.shape[1:])
    image = resize(image, [max(1, round(side * scale)) for side in image.shape[1:]], antialias=True)
    corners = torch.tensor([x.box for x in boxes], dtype=torch.float64).reshape(-1, 4) * scale
    colors = [COLORS.get(x.verdict, GREY) for x in boxes]
    labels = [_label(x, named) for x in boxes]
    drawn = draw_boxes(image, corners, colors, width=LINE)
    if len(boxes) <= MOST_LABELS and any(labels):
        drawn = tag(drawn, corners, labels, colors)
    return encode(to_pil_image(drawn), title)


def _label(box: MarkedBox, named: bool) -> str:
    score = [] if box.score is None else [f"{box.score:.2f}"]
    return " · ".join([box.class_name, *score] if named else score)


def encode(picture: Image.Image, title: str) -> Picture:
    """A picture as JPEG in the page."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY, optimize=True)
    data = base64.b64encode(file.getvalue()).decode()
    return Picture(title, f"data:image/jpeg;base64,{data}", *picture.size)
