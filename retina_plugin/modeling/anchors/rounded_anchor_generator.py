"""Anchors whose corners are whole pixels, as torchvision's are."""

from __future__ import annotations

from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from torch import Tensor

from retina_plugin.registry import ANCHOR_GENERATORS


@ANCHOR_GENERATORS.register()
class RoundedAnchorGenerator(DefaultAnchorGenerator):
    """``DefaultAnchorGenerator`` which rounds the corners of a cell's anchors to whole pixels.

    For weights that were trained in torchvision: boxes that were learnt relative to rounded anchors
    would move with others, by up to half a pixel a side. The anchors' order stays Detectron2's.

    Source: ``torchvision.models.detection.anchor_utils.AnchorGenerator.generate_anchors``.
    """

    def generate_cell_anchors(
        self,
        sizes: tuple[float, ...] = (32, 64, 128, 256, 512),
        aspect_ratios: tuple[float, ...] = (0.5, 1, 2),
    ) -> Tensor:
        """``(A, 4)`` around the origin, halves rounded to the even number."""
        return super().generate_cell_anchors(sizes, aspect_ratios).round()
