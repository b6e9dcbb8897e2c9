"""Records of parts of large images, made of the records of the images: training on tiles."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from detectron2.data.build import filter_images_with_only_crowd_annotations
from detectron2.structures import BoxMode

from retina_plugin.data.tiling import Window, clip_boxes, tile_windows

KEY = "INPUT.TILES"
TILE = "tile"  # key of a record: the window of its file that it is
NOT_CUT = ("sem_seg_file_name", "pan_seg_file_name", "proposal_boxes")
OF_WHOLE_OBJECTS = ("segmentation", "keypoints", "area")

Record = dict[str, Any]

logger = logging.getLogger(__name__)


def tile_records(
    records: Sequence[Record],
    *,
    size: int,
    overlap: int = 0,
    min_visible: float = 0.5,
    filter_empty: bool = True,
    ignore_crowd: bool = False,
) -> list[Record]:
    """Every image by tiles of about ``size`` pixels, so that an epoch sees every part of it.

    A tile's record is the image's with its window as ``tile``, which :class:`RetinaDatasetMapper`
    cuts out of the file, and the objects in it: of a box its part in the tile, in the tile's
    pixels. A box of which ``min_visible`` or less is there becomes crowd, that is a region to
    ignore where ``INPUT.IGNORE_CROWD`` is on. What is dropped is counted and logged: parts less
    than 2 pixels thin, and boxes without area within their image. A side of up to about one and a
    half tiles is not cut, see :func:`retina_plugin.data.tiling.spans`.

    **Tiles or random crops.** Detectron2's ``INPUT.CROP``, or ``RandomZoomCrop``, sees one part of
    each image an epoch, wherever it lies: better while an image is a few crops large. Of an image
    of 100 tiles it sees a hundredth, most of it empty where objects are few, and reads the whole
    file for that. Tiles see all of it, leave out what is empty, and share one decoding of the
    file. Both together are best: tiles of one and a half to two crops, which overlap by half a
    crop, and a random crop of each.

    Args:
        records: in Detectron2's format, with ``height`` and ``width``; not changed.
        size: sides of the tiles in the file's pixels: the augmentations come after.
        overlap: pixels that neighbours share.
        min_visible: share of its area above which a cut box is still an object.
        filter_empty: leave out tiles without objects, as ``DATALOADER.FILTER_EMPTY_ANNOTATIONS``
            does with images.
        ignore_crowd: whether crowd will be ignored; else a warning says what that does to cut
            boxes.

    Returns:
        Records, those of an image one after the other.

    Raises:
        ValueError: a number is not what it may be; or a record lacks its size, or has what cannot
            be cut: a segmentation map, proposals.
    """
    check_train_tiles(size=size, overlap=overlap, min_visible=min_visible)
    counts: Counter[str] = Counter()
    tiles = [
        tile
        for record in records
        for tile in _tiles_of(_checked(record), size, overlap, min_visible, counts)
    ]
    logger.info(
        f"{KEY}.TRAIN_SIZE: {len(records)} images are {len(tiles)} tiles with {counts['objects']} "
        f"objects; {counts['cut']} cut boxes are crowd there, {counts['slivers']} remainders under "
        f"2 pixels and {counts['empty']} boxes without area in their image are dropped."
    )
    if counts["cut"] and not ignore_crowd:
        logger.warning(
            f"{counts['cut']} boxes, of which a tile shows {min_visible:g} or less of the area, "
            "are learnt as background there: set INPUT.IGNORE_CROWD True to ignore them."
        )
    return filter_images_with_only_crowd_annotations(tiles) if filter_empty else tiles


def check_train_tiles(*, size: int, overlap: int, min_visible: float) -> None:
    """Refuse what tiles cannot be.

    Raises:
        ValueError: see :func:`tile_records`.
    """
    if size <= 0:
        raise ValueError(f"{KEY}.TRAIN_SIZE (size) is a tile's side in pixels, got {size}")
    if not 0 <= overlap < size:
        raise ValueError(
            f"{KEY}.TRAIN_OVERLAP (overlap) must be 0 or more and less than TRAIN_SIZE {size}, got "
            f"{overlap}: set it to the longest side of most objects, or make the tiles larger"
        )
    if not 0 <= min_visible < 1:
        raise ValueError(
            f"{KEY}.MIN_VISIBLE (min_visible) is a share of a box, 0 or more and less than 1, got "
            f"{min_visible}"
        )


def _checked(record: Record) -> Record:
    found = [key for key in NOT_CUT if key in record]
    missing = [key for key in ("height", "width", "annotations") if key not in record]
    if found or missing:
        what = f"has {', '.join(found)}" if found else f"lacks {', '.join(missing)}"
        raise ValueError(
            f"{KEY}.TRAIN_SIZE cuts images with boxes, but {record.get('file_name')} {what}: set "
            "it to 0 for this data"
        )
    return record


def _tiles_of(
    record: Record, size: int, overlap: int, min_visible: float, counts: Counter[str]
) -> Iterator[Record]:
    """The records of an image; ``counts`` goes on counting."""
    image = Window(0, 0, record["width"], record["height"])
    windows = tile_windows(image, size, overlap)
    if len(windows) == 1:
        counts["objects"] += sum(not x.get("iscrowd", 0) for x in record["annotations"])
        yield record
        return
    boxes, annotations = _boxes_in(image, record["annotations"])
    is_crowd = np.array([bool(x.get("iscrowd", 0)) for x in annotations], dtype=bool)
    counts["empty"] += len(record["annotations"]) - len(annotations)
    for window in windows:
        part = clip_boxes(boxes, window, min_visible)
        crowd = part.crowd | is_crowd[part.index]
        counts["slivers"] += part.slivers
        counts["objects"] += int((~crowd).sum())
        counts["cut"] += int((part.crowd & ~is_crowd[part.index]).sum())
        rows = zip(part.index.tolist(), part.boxes.tolist(), crowd.tolist(), strict=True)
        cut = [_in_tile(annotations[index], box, crowd) for index, box, crowd in rows]
        yield {**record, TILE: window, "annotations": cut}


def _boxes_in(image: Window, annotations: Sequence[Record]) -> tuple[np.ndarray, list[Record]]:
    """The boxes clipped to their image, XYXY, and their annotations; without those of no area."""
    boxes = np.array([x["bbox"] for x in annotations], dtype=np.float64).reshape(-1, 4)
    modes = np.array([int(x["bbox_mode"]) for x in annotations])
    for mode in set(modes.tolist()):
        of_mode = modes == mode
        boxes[of_mode] = BoxMode.convert(boxes[of_mode], BoxMode(mode), BoxMode.XYXY_ABS)
    boxes = np.clip(boxes, 0, [image.x1, image.y1] * 2)
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return boxes[has_area], [x for x, kept in zip(annotations, has_area, strict=True) if kept]


def _in_tile(annotation: Record, box: list[float], crowd: bool) -> Record:
    """An annotation with another box, without what still would describe the whole object."""
    kept = {key: value for key, value in annotation.items() if key not in OF_WHOLE_OBJECTS}
    return {**kept, "bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "iscrowd": int(crowd)}
