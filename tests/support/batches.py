"""Batches of random images with random ground truth, as Detectron2's loaders make them."""

from collections.abc import Sequence

import torch
from detectron2.structures import Boxes, Instances


def make_instances(
    count: int, height: int, width: int, num_classes: int = 7, largest: float = 60
) -> Instances:
    """``count`` boxes of 4 to ``largest`` pixels, within the image."""
    corner = torch.rand(count, 2) * torch.tensor([width - 4.0, height - 4.0])
    size = torch.rand(count, 2) * (largest - 4) + 4
    far = torch.minimum(corner + size, torch.tensor([float(width), float(height)]))
    return Instances(
        (height, width),
        gt_boxes=Boxes(torch.cat([corner, far], dim=1)),
        gt_classes=torch.randint(num_classes, (count,)),
    )


def make_image(height: int, width: int) -> torch.Tensor:
    """``(3, height, width)`` uint8."""
    return torch.randint(256, (3, height, width), dtype=torch.uint8)


def make_batch(
    counts: Sequence[int] = (6, 3),
    sizes: Sequence[tuple[int, int]] = ((96, 160), (128, 96)),
    num_classes: int = 7,
) -> list[dict]:
    """One image per entry of ``counts``, with so many boxes; the sizes are taken in turn."""
    batch = []
    for i, count in enumerate(counts):
        height, width = sizes[i % len(sizes)]
        batch.append(
            {
                "file_name": f"image_{i}.png",
                "image": make_image(height, width),
                "instances": make_instances(count, height, width, num_classes),
            }
        )
    return batch
