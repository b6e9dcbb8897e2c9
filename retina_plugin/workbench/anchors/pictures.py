"""Images as the network sees them, their objects, and what the assigner makes of the anchors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from detectron2.structures import Boxes, Instances
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, to_pil_image
from torchvision.utils import draw_bounding_boxes
from tqdm import tqdm

from retina_plugin.drawing import GROUND_TRUTH, IGNORED, beside, draw_boxes, to_picture
from retina_plugin.modeling.assigners.max_iou_assigner import MaxIoUAssigner
from retina_plugin.modeling.batch_inputs import ground_truth_of
from retina_plugin.modeling.contracts import DenseTargets, ignored_boxes
from retina_plugin.registry import ASSIGNERS
from retina_plugin.runs.load_run import run_of
from retina_plugin.workbench.anchors.coverage import Coverage
from retina_plugin.workbench.anchors.seen_boxes import seeded

MISSED = "red"
LEVEL_COLOURS = ("orange", "deepskyblue", "magenta", "yellow", "white")
_PANEL, _LARGEST_PANEL = 620, 1000  # pixels wide: small images are enlarged, large ones reduced
_LARGEST_SCALE = 4.0
_TRIES = 10  # random crops of an image until one has an object
_TEXT = 16  # pixels high, of a panel of the usual width
_MANY = 150  # anchors


class _Seen(NamedTuple):
    """One image: pixels, objects, and what the anchors shall learn."""

    picture: Tensor
    instances: Instances
    iou: Tensor
    targets: DenseTargets
    rule: str


def draw_pictures(
    cfg: CfgNode, cover: Coverage, folder: Path, *, split: str, count: int, seed: int = 0
) -> list[Path]:
    """Write a PNG for each of the images with the most missed boxes.

    Three panels: the objects, those that no anchor reaches in red with their best IoU; the anchors
    that learn an object, by level; the anchors that are ignored. Images come through the mapper
    with the augmentations of ``split``, anchors and their roles from the config's generator and
    assigner. One that judges predictions, which this has none of, is replaced by
    ``MaxIoUAssigner``, and the picture says so.

    Args:
        cfg: of the coverage.
        cover: what :func:`coverage_of` returned.
        folder: is made.
        split: of the coverage.
        count: of images, at most; those that have no box are passed over.
        seed: of the augmentations. NumPy's state is afterwards as before.

    Returns:
        The files, the worst image first.
    """
    if count <= 0:
        return []
    mapper = _mapper(cfg, split)
    assigner, rule = _assigner(cfg)
    files = []
    folder.mkdir(parents=True, exist_ok=True)
    with seeded(seed):
        for index in tqdm(_worst(cover, count), "pictures", delay=2, disable=None):
            record = cover.seen.records[index]
            given = _with_objects(mapper, record)
            if given is None:
                continue
            picture = _draw(_look(given, cfg, cover, assigner, rule), cover, record)
            path = folder / f"{len(files) + 1:02}_{Path(record['file_name']).stem}.png"
            picture.save(path)
            files.append(path)
    return files


def _worst(cover: Coverage, count: int) -> list[int]:
    """Records with the most missed boxes, then those with the most boxes."""
    missed = np.bincount(cover.seen.record, weights=cover.missed)
    boxes = np.bincount(cover.seen.record)
    order = np.lexsort([-boxes, -missed])
    return [int(i) for i in order if boxes[i]][:count]


def _mapper(cfg: CfgNode, split: str) -> DatasetMapper:
    """The split's, which keeps the objects of test images too."""
    return run_of(cfg).build_mapper(split == "train", keep_ground_truth=True)


def _with_objects(mapper: DatasetMapper, record: dict[str, Any]) -> dict[str, Any] | None:
    """The mapper's result, of several looks the first with an object in it."""
    for _ in range(_TRIES):
        given = mapper(record)
        if len(given.get("instances", ())):
            return given
    return None


def _assigner(cfg: CfgNode) -> tuple[Any, str]:
    """The config's assigner and its name, or another one that needs no predictions."""
    name = ASSIGNERS.selected(cfg)
    assigner = run_of(cfg).build_assigner()
    one = Instances((8, 8), gt_boxes=Boxes([[0.0, 0, 8, 8]]), gt_classes=torch.zeros(1).long())
    try:
        assigner([Boxes([[0.0, 0, 8, 8]])], [one], 1, None)
    except (AssertionError, AttributeError):  # what it says without the predictions it wants
        rule = MaxIoUAssigner.from_config(cfg)
        return MaxIoUAssigner(**rule), f"MaxIoUAssigner, for {name} goes by predictions"
    return assigner, name


def _look(given: dict[str, Any], cfg: CfgNode, cover: Coverage, assigner: Any, rule: str) -> _Seen:
    instances = ground_truth_of(given, len(cover.seen.class_names), torch.device("cpu"))
    size = instances.image_size
    anchors = [Boxes(x) for x in cover.grid.anchors(size)]
    boxes = instances.gt_boxes.tensor.float()
    iou, _ = cover.grid.best(boxes, np.array([size] * len(boxes)))
    return _Seen(
        picture=to_picture(given["image"], cfg.INPUT.FORMAT),
        instances=instances,
        iou=iou,
        targets=assigner(anchors, [instances], len(cover.seen.class_names), None),
        rule=rule,
    )


def _draw(seen: _Seen, cover: Coverage, record: dict[str, Any]) -> Image.Image:
    height, width = seen.instances.image_size
    scale = min(max(_PANEL / width, min(1.0, _LARGEST_PANEL / width)), _LARGEST_SCALE)
    missed = seen.iou < cover.threshold
    plain = draw_boxes(seen.picture, seen.picture.new_zeros(0, 4), MISSED, scale=scale)
    panels = [_with_objects_on(plain, seen, missed, scale)]
    reached = f"{int((~missed).sum())} objects with an anchor at IoU {cover.threshold:g}"
    legends = [[(GROUND_TRUTH, reached), (MISSED, f"{int(missed.sum())} without: their best IoU")]]
    crowd = ignored_boxes(seen.instances)
    if crowd is not None and len(crowd):
        legends[0].append((IGNORED, f"{len(crowd)} crowd"))
    for selection, what in (
        (seen.targets.positives, "anchors learn an object"),
        (seen.targets.ignored, "anchors are ignored"),
    ):
        if not len(selection):
            legends[0].append(("", f"no {what}"))
            continue
        anchors = seen.targets.anchors[selection.anchor] * scale
        faint = _faint(plain, anchors, _by_level(selection.level_counts))
        panels.append(_with_objects_on(faint, seen, missed, scale))
        counts = zip(cover.grid.names, selection.level_counts, LEVEL_COLOURS * 9, strict=False)
        levels = [(colour, f"{name}: {n}") for name, n, colour in counts if n]
        legends.append([("", f"{len(selection)} {what}"), *levels])
    name = Path(record["file_name"]).name
    return _framed(panels, legends, f"{name}   {width} x {height} px in the network   {seen.rule}")


def _faint(plain: Tensor, anchors: Tensor, colours: list[str]) -> Tensor:
    """The image shining through: under hundreds of anchors one would not see it else."""
    many = len(anchors) > _MANY
    drawn = draw_bounding_boxes(plain, anchors, colors=colours, width=1 if many else 2)
    strength = 0.5 if many else 0.7
    return torch.lerp(plain.float(), drawn.float(), strength).to(torch.uint8)


def _with_objects_on(panel: Tensor, seen: _Seen, missed: Tensor, scale: float) -> Tensor:
    """The panel with crowd and objects; missed ones on top, with their IoU."""
    boxes = seen.instances.gt_boxes.tensor.float() * scale
    crowd = ignored_boxes(seen.instances)
    crowd = boxes.new_zeros(0, 4) if crowd is None else crowd * scale
    for some, colour in ((crowd, IGNORED), (boxes[~missed], GROUND_TRUTH), (boxes[missed], MISSED)):
        if len(some):
            panel = draw_bounding_boxes(panel, some, colors=colour, width=3)
    return _write(panel, boxes[missed], seen.iou[missed])


def _text_size(panel: Tensor) -> int:
    """Legible where the picture is shown as wide as a screen."""
    return round(_TEXT * panel.shape[2] / _PANEL)


def _write(panel: Tensor, boxes: Tensor, iou: Tensor) -> Tensor:
    """White on red, above each box where there is room."""
    picture, size = to_pil_image(panel), _text_size(panel)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=size)
    for (left, top, *_), value in zip(boxes.tolist(), iou.tolist(), strict=True):
        text = f"{int(value * 100) / 100:.2f}"  # 0.4999 is no 0.50
        width = draw.textlength(text, font=font) + 4
        left = min(max(left, 0), picture.width - width)
        top = top - size - 4 if top > size + 4 else top + 2
        draw.rectangle((left, top, left + width, top + size + 2), fill=MISSED)
        draw.text((left + 2, top), text, "white", font=font)
    return pil_to_tensor(picture)


def _by_level(counts: Sequence[int]) -> list[str]:
    """A colour for each anchor of a selection, whose levels follow each other."""
    colours = LEVEL_COLOURS * len(counts)
    return [colours[level] for level, count in enumerate(counts) for _ in range(count)]


def _framed(
    panels: Sequence[Tensor], legends: Sequence[Sequence[tuple[str, str]]], title: str
) -> Image.Image:
    """Panels side by side, a title above, under each its legend: squares of colour and words."""
    pictures, size = to_pil_image(beside(panels)), _text_size(panels[0])
    font, line = ImageFont.load_default(size=size), round(1.5 * size)
    height = pictures.height + (max(map(len, legends)) + 1) * line + size
    framed = Image.new("RGB", (pictures.width, height), "white")
    framed.paste(pictures, (0, line + 6))
    draw = ImageDraw.Draw(framed)
    draw.text((6, 3), title, "black", font=font)
    for column, legend in enumerate(legends):
        left = 6 + column * (panels[0].shape[2] + 6)
        for row, (colour, words) in enumerate(legend):
            top = pictures.height + line * (row + 1) + 12
            if colour:
                box = (left, top + 3, left + size - 2, top + size + 1)
                draw.rectangle(box, fill=colour, outline="black")
            draw.text((left + (size + 4 if colour else 0), top), words, "black", font=font)
    return framed
