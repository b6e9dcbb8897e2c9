"""Which boxes of a data set the anchors of a config reach, and how well."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from detectron2.config import CfgNode

from retina_plugin.registry import ASSIGNERS
from retina_plugin.workbench.anchors.anchor_grid import AnchorGrid, anchor_grid
from retina_plugin.workbench.anchors.seen_boxes import SeenBoxes, seen_boxes

YARDSTICK = 0.5


@dataclass(frozen=True, eq=False)
class Coverage:
    """How well the M boxes of a data set are met by anchors.

    Attributes:
        seen: the boxes.
        grid: the anchors.
        iou: ``(M,)`` largest IoU of each box with the anchors of its image.
        kind: ``(M,)`` which anchor of a cell has it, counted through all levels.
        level: ``(M,)`` its level, from 0.
        threshold: what an IoU must reach to make an anchor an object.
        assigner: name of the config's.
        is_yardstick: whether ``threshold`` is no rule of that assigner, which does not go by a
            fixed IoU, but only a measure.
        notes: what was not taken into account, in words.
    """

    seen: SeenBoxes
    grid: AnchorGrid
    iou: np.ndarray
    kind: np.ndarray
    level: np.ndarray
    threshold: float
    assigner: str
    is_yardstick: bool
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.seen)

    def where(self, mask: np.ndarray) -> Coverage:
        """The rows of a ``(M,)`` mask."""
        columns = {k: x[mask] for k, x in vars(self).items() if isinstance(x, np.ndarray)}
        return replace(self, seen=self.seen.where(mask), **columns)

    @property
    def missed(self) -> np.ndarray:
        """``(M,)`` bool: boxes that no anchor reaches at ``threshold``."""
        return self.iou < self.threshold

    @property
    def side(self) -> np.ndarray:
        """``(M,)`` square root of each box's area, in pixels of the network's input."""
        return np.sqrt(self._sides().prod(axis=1))

    @property
    def ratio(self) -> np.ndarray:
        """``(M,)`` height / width, as in ASPECT_RATIOS."""
        width, height = self._sides().T
        return height / width

    def _sides(self) -> np.ndarray:
        return (self.seen.boxes[:, 2:] - self.seen.boxes[:, :2]).astype(np.float64)


def coverage_of(
    cfg: CfgNode,
    split: str = "train",
    *,
    boxes: SeenBoxes | None = None,
    grid: AnchorGrid | None = None,
) -> Coverage:
    """Compare the boxes of the config's data sets with its anchors, as the network sees both.

    Args:
        cfg: its data sets are registered (``register_datasets``).
        split: ``train`` or ``test``.
        boxes: of another choice of looks or images, see :func:`seen_boxes`.
        grid: other anchors than the config's.

    Raises:
        ValueError: see :func:`seen_boxes` and :func:`anchor_grid`; or there is no box.
    """
    grid = anchor_grid(cfg) if grid is None else grid
    boxes = seen_boxes(cfg, split) if boxes is None else boxes
    if len(boxes) == 0:
        names = ", ".join(cfg.DATASETS[split.upper()])
        raise ValueError(f"{names} (DATASETS.{split.upper()}) has no box: {_words(boxes)}")
    iou, kind = grid.best(torch.from_numpy(boxes.boxes), boxes.image_size)
    threshold, is_yardstick = _threshold(cfg)
    return Coverage(
        seen=boxes,
        grid=grid,
        iou=iou.numpy(),
        kind=kind.numpy(),
        level=grid.level_of(kind).numpy(),
        threshold=threshold,
        assigner=ASSIGNERS.selected(cfg),
        is_yardstick=is_yardstick,
        notes=tuple(_notes(cfg, split, boxes)),
    )


def _threshold(cfg: CfgNode) -> tuple[float, bool]:
    """The least IoU that makes an object, and whether it is a measure alone."""
    if ASSIGNERS.selected(cfg) != "MaxIoUAssigner":
        return YARDSTICK, True
    rule = cfg.MODEL.RETINANET
    for threshold, label in zip(rule.IOU_THRESHOLDS, rule.IOU_LABELS[1:], strict=True):
        if label == 1:
            return float(threshold), False
    return YARDSTICK, True


def _notes(cfg: CfgNode, split: str, boxes: SeenBoxes) -> list[str]:
    notes = []
    if boxes.left_out:
        notes.append(f"left out: {_words(boxes)}")
    if boxes.images_skipped:
        total = len(boxes.records)
        notes.append(f"a random {total - boxes.images_skipped} of {total} images were looked at")
    mix = cfg.INPUT.get("MIX") or {}
    on = [key for key, value in mix.items() if key.endswith("_PROB") and value > 0]
    if split == "train" and on:
        notes.append(f"INPUT.MIX ({', '.join(on)}) changes sizes as well; that is not counted")
    front_end = (cfg.MODEL.get("FRONT_END") or {}).get("NAME", "none")
    if front_end == "LearnedScaleFrontEnd":
        notes.append(f"MODEL.FRONT_END.NAME {front_end} scales images; that is not counted")
    return notes


def _words(boxes: SeenBoxes) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in boxes.left_out.items()) or "none"
