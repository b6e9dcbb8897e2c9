"""The boxes of a data set in the pixels that the network sees, without decoding an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from fvcore.transforms.transform import BlendTransform, Transform
from tqdm import tqdm

from retina_plugin.data.augmentations import QuarterTurn, Zoom
from retina_plugin.data.decoders import build_decoder
from retina_plugin.data.mapper import boxes_after
from retina_plugin.data.tile_records import TILE, tile_records
from retina_plugin.runs.load_run import run_of

DRAWS = 4  # looks at each image where augmentations are random
MAX_BOXES = 100_000
LEAST_SIDE = 1e-5  # of a box, as in Detectron2's filter_empty_instances
# What they do to colours moves no box, and they look at every pixel
_FOR_COLOURS = (T.RandomBrightness, T.RandomContrast, T.RandomSaturation, T.RandomLighting)

Record = dict[str, Any]


@dataclass(frozen=True, eq=False)
class SeenBoxes:
    """M boxes as the network sees them, a row a box and look.

    Attributes:
        record: ``(M,)`` index of the image's record in ``records``.
        annotation: ``(M,)`` index of the box in that record's ``annotations``.
        draw: ``(M,)`` number of the look at the image; each has random augmentations of its own.
        class_id: ``(M,)`` from 0.
        boxes: ``(M, 4)`` float32 XYXY in pixels of the network's input.
        image_size: ``(M, 2)`` height and width of that input before padding.
        file_area: ``(M,)`` area of the box in the file's pixels.
        visible: ``(M,)`` part of the box that crops leave in the image, in area.
        records: what the data set has, tiles where the config makes tiles to train on.
        class_names: of the data set.
        left_out: how many boxes are not among them, by reason.
        images_skipped: records not looked at because there are more than ``MAX_BOXES`` boxes.
    """

    record: np.ndarray
    annotation: np.ndarray
    draw: np.ndarray
    class_id: np.ndarray
    boxes: np.ndarray
    image_size: np.ndarray
    file_area: np.ndarray
    visible: np.ndarray
    records: Sequence[Record]
    class_names: tuple[str, ...]
    left_out: dict[str, int]
    images_skipped: int = 0

    def __len__(self) -> int:
        return len(self.boxes)

    def where(self, mask: np.ndarray) -> SeenBoxes:
        """The rows of a ``(M,)`` mask or of indices."""
        columns = {k: x[mask] for k, x in vars(self).items() if isinstance(x, np.ndarray)}
        return replace(self, **columns)


def seen_boxes(
    cfg: CfgNode,
    split: str = "train",
    *,
    draws: int | None = None,
    max_boxes: int = MAX_BOXES,
    seed: int = 0,
) -> SeenBoxes:
    """Apply the augmentations of ``cfg`` to the boxes alone: images are never read.

    Crowd and boxes without area are left out and counted.

    Args:
        cfg: its data sets are registered.
        split: ``train`` or ``test``: which data sets, which augmentations, and whether
            ``INPUT.TILES.TRAIN_SIZE`` applies.
        draws: looks at each image; by default ``DRAWS``, or 1 if all looks would be the same.
        max_boxes: images are picked at random until they have about so many boxes.
        seed: of the augmentations and of that choice. NumPy's state is afterwards as before.

    Raises:
        ValueError: ``split`` is another word, or there are no data sets.
    """
    records = _records(cfg, split)
    augmentations = T.AugmentationList(
        [x for x in augmentations_of(cfg, split) if not isinstance(x, _FOR_COLOURS)]
    )
    draws = draws or (1 if all(map(_is_fixed, augmentations.augs)) else DRAWS)
    size_of = _SizeOf(cfg)
    looks = _Looks()
    with seeded(seed):
        chosen = _chosen(records, max_boxes // draws)
        for index in tqdm(chosen, "boxes as the network sees them", delay=2, disable=None):
            looks.begin(records[index])
            for draw in range(draws if looks.objects else 0):
                seen = _Shape(size_of(records[index]))
                transforms = augmentations(seen)
                looks.add(index, draw, transforms, seen.image.shape[:2])
    names = cfg.DATASETS[split.upper()]
    return looks.table(
        records=records,
        class_names=_class_names(names, records),
        images_skipped=len(records) - len(chosen),
    )


def augmentations_of(cfg: CfgNode, split: str) -> list[T.Augmentation]:
    """What the mapper of a split does to an image.

    Raises:
        ValueError: it is of the user's own, and does not say.
    """
    mapper = run_of(cfg).build_mapper(split == "train")
    found = getattr(mapper, "augmentations", None)
    if not isinstance(found, T.AugmentationList):
        raise ValueError(
            f"{type(mapper).__name__}, the mapper of the {split} data, has no attribute "
            "augmentations: what the network sees of a box is not known"
        )
    return found.augs


def _is_fixed(augmentation: T.Augmentation) -> bool:
    """Whether it is known to do the same at every look."""
    if isinstance(augmentation, T.ResizeShortestEdge):
        return len(set(augmentation.short_edge_length)) == 1  # of a range, both ends
    return isinstance(augmentation, Zoom | T.Resize)


class _Shape(T.AugInput):
    """An image of which only the shape is true: its pixels share one byte of memory."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__(_blank(*size))

    def transform(self, tfm: Transform) -> None:
        self.image = _shape_after(tfm, self.image)


def _blank(height: int, width: int) -> np.ndarray:
    return np.broadcast_to(np.zeros(1, dtype=np.uint8), (height, width, 3))


def _shape_after(transform: Transform, image: np.ndarray) -> np.ndarray:
    """A blank image as large as what the transform makes of ``image``; any transform will do."""
    if isinstance(transform, T.TransformList):
        for part in transform.transforms:
            image = _shape_after(part, image)
        return image
    height, width = image.shape[:2]
    if isinstance(transform, T.ResizeTransform):
        return _blank(transform.new_h, transform.new_w)
    if isinstance(transform, QuarterTurn):
        return _blank(width, height) if transform.turns % 2 else image
    if isinstance(transform, BlendTransform | T.ColorTransform):
        return image
    return _blank(*transform.apply_image(image).shape[:2])  # crops and flips are views


class _Looks:
    """Collects columns, image by image."""

    def __init__(self) -> None:
        self.left_out = {"crowd": 0, "without area": 0, "outside the crop": 0}
        self._parts: list[tuple[np.ndarray, ...]] = []
        self.objects: list[Record] = []

    def begin(self, record: Record) -> None:
        """The next image: its objects."""
        annotations = record.get("annotations", [])
        boxes = [BoxMode.convert(x["bbox"], x["bbox_mode"], BoxMode.XYXY_ABS) for x in annotations]
        boxes = np.array(boxes, dtype=np.float64).reshape(-1, 4)
        sides = boxes[:, 2:] - boxes[:, :2]
        crowd = np.array([bool(x.get("iscrowd", 0)) for x in annotations], dtype=bool)
        flat = ~crowd & ~(sides > LEAST_SIDE).all(axis=1)
        self.left_out["crowd"] += int(crowd.sum())
        self.left_out["without area"] += int(flat.sum())
        self._rows = np.flatnonzero(~crowd & ~flat)
        self.objects = [annotations[row] for row in self._rows]
        self._boxes, self._areas = boxes[self._rows], sides[self._rows].prod(axis=1)

    def add(
        self, index: int, draw: int, transforms: Transform, image_size: tuple[int, int]
    ) -> None:
        """One look at the image."""
        seen = boxes_after(self.objects, transforms, image_size)
        whole = transforms.apply_box(self._boxes)
        sides = seen[:, 2:] - seen[:, :2]
        kept = (sides > LEAST_SIDE).all(axis=1)
        self.left_out["outside the crop"] += int((~kept).sum())
        count = int(kept.sum())
        whole_areas = (whole[kept, 2:] - whole[kept, :2]).prod(axis=1)
        self._parts.append(
            (
                np.full(count, index),
                self._rows[kept],
                np.full(count, draw),
                np.array([x["category_id"] for x in self.objects], dtype=np.int64)[kept],
                seen[kept].astype(np.float32),
                np.tile(np.array(image_size), (count, 1)),
                self._areas[kept],
                sides[kept].prod(axis=1) / np.maximum(whole_areas, LEAST_SIDE**2),
            )
        )

    def table(self, **context: Any) -> SeenBoxes:
        """All looks."""
        empty = (0, 4), (0, 2)
        none = [np.zeros(0, dtype=np.int64)] * 4
        none += [np.zeros(shape, np.float32) for shape in (*empty, 0, 0)]
        columns = [np.concatenate(x) for x in zip(none, *self._parts, strict=True)]
        left_out = {reason: count for reason, count in self.left_out.items() if count}
        return SeenBoxes(*columns, left_out=left_out, **context)


class _SizeOf:
    """The size of a record's image: as it says, else as the file is."""

    def __init__(self, cfg: CfgNode) -> None:
        self.decoder, self.format = build_decoder(cfg), cfg.INPUT.FORMAT

    def __call__(self, record: Record) -> tuple[int, int]:
        if TILE in record:
            return record[TILE].height, record[TILE].width
        if "height" in record and "width" in record:
            return record["height"], record["width"]
        return self.decoder(record["file_name"], self.format).shape[:2]


def _records(cfg: CfgNode, split: str) -> list[Record]:
    if split not in ("train", "test"):
        raise ValueError(f"split is train or test, got {split!r}")
    names = cfg.DATASETS[split.upper()]
    if not names:
        raise ValueError(
            f"DATASETS.{split.upper()} is empty: name a registered data set there, or give "
            f"DATASETS.COCO.{split.upper()}.JSON and .IMAGES"
        )
    records = [record for name in names for record in DatasetCatalog.get(name)]
    tiles = cfg.INPUT.get("TILES") or {}
    if split == "train" and tiles.get("TRAIN_SIZE", 0):
        return tile_records(
            records,
            size=tiles["TRAIN_SIZE"],
            overlap=tiles["TRAIN_OVERLAP"],
            min_visible=tiles["MIN_VISIBLE"],
            ignore_crowd=cfg.INPUT.get("IGNORE_CROWD", False),
        )
    return records


def _chosen(records: Sequence[Record], boxes: int) -> list[int]:
    """All records, or so many of them, in a random order, that have about that many boxes."""
    counts = [len(record.get("annotations", ())) for record in records]
    if sum(counts) <= boxes:
        return list(range(len(records)))
    order = np.random.permutation(len(records))
    so_far = np.cumsum(np.array(counts)[order])
    return sorted(order[: int(np.searchsorted(so_far, boxes)) + 1].tolist())


def _class_names(names: Sequence[str], records: Sequence[Record]) -> tuple[str, ...]:
    """Of the metadata, else numbers."""
    for name in names:
        known = MetadataCatalog.get(name).get("thing_classes")
        if known:
            return tuple(known)
    ids = [x["category_id"] for record in records for x in record.get("annotations", ())]
    return tuple(str(i) for i in range(max(ids, default=-1) + 1))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """NumPy's random numbers, which the augmentations draw from, from ``seed``."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)
