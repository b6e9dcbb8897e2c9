"""The synthetic batch that everything is measured on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torch.nn import functional as F

SMALLEST, LARGEST = 10.0, 400.0  # sides of the boxes in pixels, where the image is large enough
MEAN, BLOTCHES, GRAIN = 115.0, 75.0, 20.0  # grey levels; interpolation softens the blotches


@dataclass(frozen=True)
class Case:
    """N images of ``height`` x ``width`` pixels with M boxes each of K classes.

    Attributes:
        images: N.
        boxes: M.
        classes: K.
        channels: of an image.
    """

    images: int
    boxes: int
    height: int
    width: int
    classes: int
    channels: int = 3
    seed: int = 0

    def batch(self) -> list[dict[str, Any]]:
        """N inputs as Detectron2's loaders give them, on the CPU; the same every time."""
        generator = torch.Generator().manual_seed(self.seed)
        return [
            {
                "file_name": f"synthetic_{i}",
                "height": self.height,
                "width": self.width,
                "image": self._image(generator),
                "instances": self._instances(generator),
            }
            for i in range(self.images)
        ]

    def _image(self, generator: torch.Generator) -> Tensor:
        """``(C, H, W)`` uint8: soft blotches under fine grain."""
        coarse = torch.randn(
            1, self.channels, self.height // 16 + 2, self.width // 16 + 2, generator=generator
        )
        size = (self.height, self.width)
        blotches = F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)[0]
        grain = torch.randn(self.channels, *size, generator=generator)
        return (MEAN + BLOTCHES * blotches + GRAIN * grain).clamp(0, 255).to(torch.uint8)

    def _instances(self, generator: torch.Generator) -> Instances:
        """M boxes within the image, sides log-uniform, ratios from 1:2 to 2:1."""
        draws = torch.rand(self.boxes, 4, generator=generator)
        image = torch.tensor([self.width, self.height], dtype=torch.float32)
        largest = min(LARGEST, 0.9 * float(image.min()))
        smallest = min(SMALLEST, largest)
        side = smallest * (largest / smallest) ** draws[:, :1]
        stretch = math.sqrt(2) ** (2 * draws[:, 1:2] - 1)
        size = torch.minimum(torch.cat([side * stretch, side / stretch], dim=1), image)
        corner = draws[:, 2:] * (image - size)
        return Instances(
            (self.height, self.width),
            gt_boxes=Boxes(torch.cat([corner, corner + size], dim=1)),
            gt_classes=torch.randint(self.classes, (self.boxes,), generator=generator),
        )
