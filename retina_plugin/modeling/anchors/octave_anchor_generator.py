"""Anchors as numbers: a base size a level, steps of an octave, aspect ratios."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator

from retina_plugin.registry import ANCHOR_GENERATORS

SCALES_PER_OCTAVE = 3  # the paper's


# yacs keeps a key to the type of its default; None is the one that takes a number and a list
@ANCHOR_GENERATORS.register(defaults={"SCALES_PER_OCTAVE": None})
class OctaveAnchorGenerator(DefaultAnchorGenerator):
    """Anchors of sizes ``base * 2**(i / n)``, ``i = 0..n-1``, in every aspect ratio.

    The number of anchors per cell may differ between levels: give a list of base sizes, a number
    of scales or a list of ratios for each level. The head follows.

    Source: Lin et al. 2017, section 4: base sizes 32..512 on P3..P7, three scales per octave,
    ratios 1:2, 1:1, 2:1; ``DefaultAnchorGenerator`` makes the boxes.

    Args:
        base_sizes: square roots of the anchors' areas in pixels; one list a level, or a single
            list for all levels.
        scales_per_octave: number of scales n per octave, one for all levels or one per level.
        aspect_ratios: height / width; one list a level, or a single list for all levels.
        strides: of the levels, in pixels.
        offset: of the first anchor's centre, in strides.

    Raises:
        ValueError: lengths do not fit the levels, or a number is not positive.
    """

    @configurable
    def __init__(
        self,
        *,
        base_sizes: Sequence[Sequence[float]] | Sequence[float],
        scales_per_octave: int | Sequence[int] = SCALES_PER_OCTAVE,
        aspect_ratios: Sequence[Sequence[float]] | Sequence[float] = (0.5, 1.0, 2.0),
        strides: Sequence[int],
        offset: float = 0.5,
    ) -> None:
        bases = _per_level(base_sizes, len(strides), "SIZES")
        ratios = _per_level(aspect_ratios, len(strides), "ASPECT_RATIOS")
        if not isinstance(scales_per_octave, Sequence) or isinstance(scales_per_octave, str):
            scales_per_octave = [scales_per_octave] * len(strides)
        whole = all(type(n) is int and n >= 1 for n in scales_per_octave)
        if len(scales_per_octave) != len(strides) or not whole:
            raise ValueError(
                "MODEL.ANCHOR_GENERATOR.OctaveAnchorGenerator.SCALES_PER_OCTAVE needs a whole "
                f"number >= 1, or one for each of the {len(strides)} levels, "
                f"got {scales_per_octave}"
            )
        for level, (sizes, scales) in enumerate(zip(bases, scales_per_octave, strict=True)):
            # Stock configs spell the octave out in SIZES; multiplied again it would make 27 anchors
            if scales > 1 and any(a < b < 2 * a for a in sizes for b in sizes):
                raise ValueError(
                    f"MODEL.ANCHOR_GENERATOR.SIZES of level {level} has base sizes {sizes} within "
                    f"one octave, and SCALES_PER_OCTAVE {scales} would multiply them again: give "
                    "one base size per octave, or set SCALES_PER_OCTAVE to 1"
                )
        sizes = [
            [base * 2 ** (i / n) for base in level for i in range(n)]
            for level, n in zip(bases, scales_per_octave, strict=True)
        ]
        super().__init__(sizes=sizes, aspect_ratios=ratios, strides=strides, offset=offset)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict[str, Any]:
        """Base sizes, ratios and offset from the stock keys, the scales from the plugin's."""
        scales = ANCHOR_GENERATORS.settings(cfg, cls.__name__)["SCALES_PER_OCTAVE"]
        return {
            "base_sizes": cfg.MODEL.ANCHOR_GENERATOR.SIZES,
            "scales_per_octave": SCALES_PER_OCTAVE if scales is None else scales,
            "aspect_ratios": cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS,
            "strides": [x.stride for x in input_shape],
            "offset": cfg.MODEL.ANCHOR_GENERATOR.OFFSET,
        }


def _per_level(
    values: Sequence[Sequence[float]] | Sequence[float], levels: int, key: str
) -> list[list[float]]:
    """One list a level; a single list, nested or not, serves all levels (as in Detectron2)."""
    is_nested = all(isinstance(v, Sequence) for v in values)
    nested = [list(v) for v in values] if is_nested else [list(values)]
    if len(nested) == 1:
        nested = nested * levels
    if len(nested) != levels or any(not v or min(v) <= 0 for v in nested):
        raise ValueError(
            f"MODEL.ANCHOR_GENERATOR.{key} needs one list of positive numbers, or one for each of "
            f"the {levels} levels of MODEL.RETINANET.IN_FEATURES, got {values}"
        )
    return nested
