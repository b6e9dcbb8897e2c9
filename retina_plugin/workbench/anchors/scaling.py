"""The config's anchors in another size: the first thing to try where they miss boxes."""

from __future__ import annotations

from dataclasses import dataclass

from detectron2.config import CfgNode

from retina_plugin.workbench.anchors.anchor_set import NODE, override, rounded
from retina_plugin.workbench.anchors.coverage import Coverage, coverage_of
from retina_plugin.workbench.anchors.pattern_search import STRIDES, score

FACTORS = tuple(2 ** (i / 2) for i in range(-6, 7))  # an eighth to eight times, in half octaves


@dataclass(frozen=True)
class ScaledAnchors:
    """The config's anchors times a factor.

    Attributes:
        factor: of all sizes.
        override: ``MODEL.ANCHOR_GENERATOR.SIZES=...``.
        coverage: with them.
    """

    factor: float
    override: str
    coverage: Coverage


def best_scale(cfg: CfgNode, cover: Coverage) -> ScaledAnchors:
    """The factor that brings the highest mean IoU plus share of boxes that are reached.

    Factors that make anchors smaller than a cell of their level are not tried, nor, unless the
    config's own are such, anchors larger than eight.
    """
    tried = [ScaledAnchors(1.0, _override(cfg, 1.0), cover)]
    for factor in FACTORS:
        if factor != 1 and _fits(cover, factor):
            grid = cover.grid.with_cells([cell * factor for cell in cover.grid.cells])
            scaled = coverage_of(cfg, boxes=cover.seen, grid=grid)
            tried.append(ScaledAnchors(factor, _override(cfg, factor), scaled))
    return max(tried, key=lambda x: score(x.coverage.iou, cover.threshold))


def _fits(cover: Coverage, factor: float) -> bool:
    low, high = STRIDES
    for cells, stride in zip(cover.grid.cells, cover.grid.strides, strict=True):
        sides = (cells[:, 2:] - cells[:, :2]).prod(dim=1).sqrt() / stride
        if factor * sides.min() < low or (factor > 1 and factor * sides.max() > high):
            return False
    return True


def _override(cfg: CfgNode, factor: float) -> str:
    sizes = cfg.MODEL.ANCHOR_GENERATOR.SIZES
    if not any(isinstance(level, list | tuple) for level in sizes):
        sizes = [sizes]
    return override(f"{NODE}.SIZES", [[rounded(x * factor) for x in level] for level in sizes])
