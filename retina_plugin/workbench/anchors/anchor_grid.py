"""The anchors that a config lays over an image, level by level, and the one nearest to a box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import Backbone
from torch import Tensor, nn

from retina_plugin.modeling.assigners.per_image import broadcast_iou
from retina_plugin.runs.load_run import run_of
from retina_plugin.runs.run import Run

_PAIRS = 1 << 21  # boxes x anchors of a cell at a time


@dataclass(frozen=True, eq=False)
class AnchorGrid:
    """Where anchors lie, for images of any size.

    Attributes:
        cells: ``(A_l, 4)`` float32 a level: the anchors of a cell around the origin.
        strides: of the levels, in pixels.
        offset: of the first cell's centre, in strides.
        names: of the levels.
        divisibility: images are padded to multiples of it; 0 or 1 for none.
        square: side of the square that images are padded to; 0 for none.
    """

    cells: Sequence[Tensor]
    strides: Sequence[int]
    offset: float
    names: Sequence[str]
    divisibility: int = 0
    square: int = 0

    def with_cells(self, cells: Sequence[Tensor]) -> AnchorGrid:
        """Other anchors in the same places."""
        return AnchorGrid(
            cells, self.strides, self.offset, self.names, self.divisibility, self.square
        )

    @property
    def num_anchors(self) -> list[int]:
        """Anchors of a cell on each level."""
        return [len(x) for x in self.cells]

    def map_sizes(self, image_sizes: np.ndarray, stride: int) -> np.ndarray:
        """``(M, 2)`` height and width of images -> those of a level's feature map."""
        sizes = np.full_like(image_sizes, self.square) if self.square else image_sizes
        padding = max(self.divisibility, 1)
        return -(-(-(-sizes // padding) * padding) // stride)

    def anchors(self, image_size: tuple[int, int]) -> list[Tensor]:
        """All anchors of one image: ``(R_l, 4)`` a level, as the anchor generator lists them."""
        levels = []
        for cells, stride in zip(self.cells, self.strides, strict=True):
            rows, columns = self.map_sizes(np.array([image_size]), stride)[0].tolist()
            y, x = (self.offset * stride + torch.arange(n) * stride for n in (rows, columns))
            y, x = torch.meshgrid(y, x, indexing="ij")
            at = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
            levels.append((at + cells).reshape(-1, 4))
        return levels

    def best(self, boxes: Tensor, image_sizes: np.ndarray) -> tuple[Tensor, Tensor]:
        """The largest IoU of each box with the anchors of its image, and which kind has it.

        Exact, though no anchor but the nearest of each kind is looked at: of equal anchors on a
        grid the one whose centre is nearest to the box's, across and down, overlaps it most, since
        both overlaps only fall with the distance. So the cost is M times the anchors of a cell, not
        of an image.

        Args:
            boxes: ``(M, 4)`` float32.
            image_sizes: ``(M, 2)`` height and width of each box's image, before padding.

        Returns:
            ``(M,)`` IoU and ``(M,)`` int64 index among the anchors of a cell, all levels' in turn;
            of equal ones the first.
        """
        iou, kind = boxes.new_zeros(len(boxes)), torch.zeros(len(boxes), dtype=torch.int64)
        step = max(1, _PAIRS // max(sum(self.num_anchors), 1))
        for start in range(0, len(boxes), step):
            part = slice(start, start + step)
            iou[part], kind[part] = self.overlaps(boxes[part], image_sizes[part]).max(dim=1)
        return iou, kind

    def overlaps(self, boxes: Tensor, image_sizes: np.ndarray) -> Tensor:
        """``(M, sum of A_l)``: the largest IoU of each box with each kind of anchor."""
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        levels = []
        for cells, stride in zip(self.cells, self.strides, strict=True):
            last = torch.from_numpy(self.map_sizes(image_sizes, stride)[:, ::-1].copy()) - 1
            cell = (centre / stride - self.offset).round().clamp(min=0).minimum(last)
            at = (self.offset * stride + cell * stride).repeat(1, 2)  # as the generator rounds
            levels.append(broadcast_iou(boxes[:, None], at[:, None] + cells))
        return torch.cat(levels, dim=1)

    def level_of(self, kind: Tensor) -> Tensor:
        """Level of each index among the anchors of a cell."""
        return torch.bucketize(kind, torch.tensor(self.num_anchors).cumsum(0), right=True)


def anchor_grid(cfg: CfgNode) -> AnchorGrid:
    """The anchors of a config; its backbone is built for the strides alone, without memory.

    Raises:
        ValueError: the anchors are rotated boxes.
    """
    run = run_of(cfg)
    backbone = _backbone(run)
    names = list(cfg.MODEL.RETINANET.IN_FEATURES)
    shapes = [backbone.output_shape()[name] for name in names]
    generator = run.build_anchor_generator([x.stride for x in shapes])
    padding = backbone.padding_constraints
    return AnchorGrid(
        cells=cells_of(generator, cfg.MODEL.ANCHOR_GENERATOR.NAME),
        strides=[x.stride for x in shapes],
        offset=getattr(generator, "offset", cfg.MODEL.ANCHOR_GENERATOR.OFFSET),
        names=names,
        divisibility=padding.get("size_divisibility", backbone.size_divisibility),
        square=padding.get("square_size", 0),
    )


def cells_of(generator: nn.Module, name: str) -> list[Tensor]:
    """``(A_l, 4)`` a level: the anchors of a cell, of a generator of that name.

    Raises:
        ValueError: they are rotated boxes.
    """
    cells = [cell.detach().clone() for cell in generator.cell_anchors]
    if any(cell.shape[1] != 4 for cell in cells):
        raise ValueError(
            f"MODEL.ANCHOR_GENERATOR.NAME {name} makes rotated anchors: "
            "this compares upright boxes, such as DefaultAnchorGenerator's"
        )
    return cells


def _backbone(run: Run) -> Backbone:
    """On no device, which takes no memory; on the CPU where it looks at numbers while it is built.

    Its strides do not depend on the number of channels, which a front-end may change.
    """
    try:
        with torch.device("meta"):
            return run.build_backbone()
    except RuntimeError:  # "Tensor.item() cannot be called on meta tensors"
        return run.build_backbone()
