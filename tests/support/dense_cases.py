"""Random head maps and targets, and the same laid out flat, as reference formulas want them."""

from dataclasses import dataclass

import torch
from detectron2.modeling.meta_arch.dense_detector import permute_to_N_HWA_K
from detectron2.structures import Boxes, Instances
from torch import Tensor

from retina_plugin.modeling.contracts import IGNORE, DenseTargets

SIZES = ((5, 7), (3, 4), (2, 2), (1, 1))


@dataclass
class DenseCase:
    """Logits that require gradients, and targets for them."""

    logits: list[Tensor]
    targets: DenseTargets

    def flat(self) -> Tensor:
        """``(N, R, K)`` through Detectron2's own transposition; gradients reach the logits."""
        k = self.targets.num_classes
        return torch.cat([permute_to_N_HWA_K(x, k) for x in self.logits], dim=1)

    def valid(self) -> Tensor:
        """``(N, R)``: the anchors that are not ignored."""
        return self.targets.labels >= 0

    def one_hot(self) -> Tensor:
        """``(N, R, K)``, background all zero."""
        k = self.targets.num_classes
        labels = self.targets.labels.clamp(min=0)
        return torch.nn.functional.one_hot(labels, k + 1)[..., :k].to(self.logits[0].dtype)

    def gradients(self, loss: Tensor) -> list[Tensor]:
        """Of ``loss`` with respect to the logits."""
        return list(torch.autograd.grad(loss, self.logits))


def make_targets(
    labels: Tensor, level_sizes: tuple[int, ...], num_classes: int, boxes_per_image: int = 3
) -> DenseTargets:
    """Targets of ``(N, R)`` labels with random anchors, matches and ground truth."""
    n, r = labels.shape
    instances = []
    for _ in range(n):
        corner = torch.rand(boxes_per_image, 2) * 50
        boxes = torch.cat([corner, corner + 10 + torch.rand(boxes_per_image, 2) * 40], dim=1)
        classes = torch.randint(num_classes, (boxes_per_image,))
        instances.append(Instances((100, 100), gt_boxes=Boxes(boxes), gt_classes=classes))
    corner = torch.rand(r, 2) * 50
    return DenseTargets(
        labels=labels,
        matched=torch.randint(boxes_per_image, (n, r)),
        instances=instances,
        anchors=torch.cat([corner, corner + 20], dim=1),
        level_sizes=level_sizes,
        num_classes=num_classes,
    )


def make_case(
    *,
    num_images: int = 2,
    num_classes: int = 3,
    counts: tuple[int, ...] = (2, 2, 3, 1),
    sizes: tuple[tuple[int, int], ...] = SIZES,
    positive: float = 0.15,
    ignored: float = 0.15,
    dtype: torch.dtype = torch.float32,
    spread: float = 3.0,
) -> DenseCase:
    """Random logits and labels.

    Args:
        num_images: N.
        num_classes: K.
        counts: A of each level.
        sizes: (H, W) of each level.
        positive: share of anchors with an object.
        ignored: share of anchors that are ignored.
        dtype: of the logits.
        spread: standard deviation of the logits.
    """
    logits = [
        torch.randn(num_images, a * num_classes, h, w, dtype=torch.float64)
        .mul(spread)
        .to(dtype)
        .requires_grad_()
        for a, (h, w) in zip(counts, sizes, strict=True)
    ]
    level_sizes = tuple(a * h * w for a, (h, w) in zip(counts, sizes, strict=True))
    draw = torch.rand(num_images, sum(level_sizes))
    labels = torch.randint(num_classes, draw.shape)
    labels[draw > positive] = num_classes
    labels[draw > 1 - ignored] = IGNORE
    return DenseCase(logits, make_targets(labels, level_sizes, num_classes))
