"""What the parts hand each other, and the shape legend that every docstring uses.

N images, A anchors per cell, K classes, R = all anchors of an image, M ground-truth boxes of an
image, P = positives in the batch, D numbers that describe a box (4 deltas, unless the box coder
says otherwise). Boxes are XYXY in pixels; logits are before the sigmoid; labels are -1 ignore,
0..K-1 object, K background.

The head's maps stay as the convolutions wrote them (``dense_targets.py``): level ``l`` has logits
``(N, A_l*K, H, W)`` and deltas ``(N, A_l*D, H, W)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.structures.boxes import matched_pairwise_iou
from torch import Tensor

from retina_plugin.modeling.dense_targets import IGNORE, DenseTargets, Selection

__all__ = [
    "IGNORE",
    "Assigner",
    "BoxCoder",
    "BoxLoss",
    "ClassificationLoss",
    "DenseTargets",
    "FrontEnd",
    "IgnoredRegions",
    "NetworkInput",
    "Normalizer",
    "PositiveBoxes",
    "PostProcessor",
    "Predictions",
    "Selection",
    "box_dim",
    "ignored_boxes",
    "with_ignored",
]


class IgnoredRegions:
    """Boxes of an image in which nobody knows what there is, as a field of its ``Instances``.

    They belong to the image: whichever objects are selected, all regions stay. The length, which
    ``Instances`` demands of a field, is the number of objects.

    Args:
        boxes: ``(I, 4)``.
        count: M, the number of objects.
    """

    def __init__(self, boxes: Tensor, count: int) -> None:
        self.boxes = boxes
        self._rows = boxes.new_empty(count, 0)  # is indexed as every other field

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, item: Any) -> IgnoredRegions:
        return IgnoredRegions(self.boxes, len(self._rows[item]))

    def to(self, *args: Any, **kwargs: Any) -> IgnoredRegions:
        """As ``Tensor.to``."""
        return IgnoredRegions(self.boxes.to(*args, **kwargs), len(self))

    @staticmethod
    def cat(parts: Sequence[IgnoredRegions]) -> IgnoredRegions:
        """The regions and the objects of all parts."""
        return IgnoredRegions(torch.cat([p.boxes for p in parts]), sum(map(len, parts)))


def with_ignored(instances: Instances, boxes: Tensor) -> Instances:
    """Set the regions of an image, ``(I, 4)``, of which nobody knows what is in them.

    Args:
        instances: has its other fields already; is changed and returned.
    """
    instances.gt_ignored = IgnoredRegions(boxes, len(instances))
    return instances


def ignored_boxes(instances: Instances) -> Tensor | None:
    """``(I, 4)``, crowds and other regions where no background shall be learnt, or None."""
    return instances.gt_ignored.boxes if instances.has("gt_ignored") else None


class BoxCoder:
    """Boxes <-> deltas relative to anchors.

    A coder need not derive from it, unless a box takes another number of predictions than 4.

    Attributes:
        dim: D, how many numbers the head predicts for a box.
    """

    dim: int = 4

    def encode(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """``(P, 4), (P, 4) -> (P, 4)``, the deltas that would be right."""
        raise NotImplementedError

    def decode(self, anchors: Tensor, deltas: Tensor) -> Tensor:
        """``(P, 4), (P, D) -> (P, 4)`` boxes."""
        raise NotImplementedError


def box_dim(coder: BoxCoder) -> int:
    """D: how many numbers the head predicts for a box; 4 of a coder that does not say otherwise."""
    return coder.dim if isinstance(coder, BoxCoder) else BoxCoder.dim


@dataclass(frozen=True, eq=False)
class Predictions:
    """The head's raw maps and the anchors they speak of, one entry a level.

    Attributes:
        logits: ``(N, A*K, H, W)`` each.
        deltas: ``(N, A*D, H, W)`` each.
        anchors: ``H*W*A`` boxes each, the same for every image.
        extras: whatever else the head predicts, by name: maps like the others.
        coder: understands the deltas.
        features: ``(N, C, H, W)`` each, what the head saw: for losses between networks.
        image_sizes: height and width of each image before padding.
        input: what the backbone saw, and how the batch's own pixels relate to it.
    """

    logits: Sequence[Tensor]
    deltas: Sequence[Tensor]
    anchors: Sequence[Boxes]
    extras: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)
    coder: BoxCoder | None = None
    features: Sequence[Tensor] = ()
    image_sizes: Sequence[tuple[int, int]] = ()
    input: NetworkInput | None = None

    @torch.no_grad()
    def boxes(self, image: int) -> Tensor:
        """``(R, 4)``, all boxes of one image, for assigners: without gradient."""
        assert self.coder is not None
        dim = box_dim(self.coder)
        deltas = [_by_anchor(map_[image], dim) for map_ in self.deltas]
        return self.coder.decode(Boxes.cat(list(self.anchors)).tensor, torch.cat(deltas))

    @torch.no_grad()
    def class_logits(self, image: int, classes: Tensor) -> Tensor:
        """``(M, R)``: what every anchor of one image says of M classes; without gradient."""
        levels = []
        for map_, anchors in zip(self.logits, self.anchors, strict=True):
            channels, height, width = map_[image].shape
            per_cell = len(anchors) // max(height * width, 1)
            maps = map_[image].view(per_cell, channels // max(per_cell, 1), height, width)
            levels.append(maps[:, classes].permute(1, 2, 3, 0).flatten(1))
        return torch.cat(levels, dim=1).float()


def _by_anchor(map_: Tensor, dim: int) -> Tensor:
    """``(A*dim, H, W) -> (H*W*A, dim)``."""
    return map_.view(len(map_) // dim, dim, *map_.shape[1:]).permute(2, 3, 0, 1).reshape(-1, dim)


@dataclass(frozen=True, eq=False)
class PositiveBoxes:
    """What a box loss sees: the positives' predictions and ground truth, in both languages.

    Attributes:
        deltas: ``(P, D)`` predicted deltas.
        anchors: ``(P, 4)``.
        gt_boxes: ``(P, 4)``.
        coder: translates between the two.
        assigned_scores: ``(P,)``, the assigner's opinion of each positive, or None.
        targets: where the positives come from, for their objects' other fields.
    """

    deltas: Tensor
    anchors: Tensor
    gt_boxes: Tensor
    coder: BoxCoder
    assigned_scores: Tensor | None = None
    targets: DenseTargets | None = None

    def field(self, name: str) -> Tensor:
        """``(P, ...)``: a field of each positive's object, such as ``gt_weight``.

        Raises:
            KeyError: an image's ground truth has no such field.
        """
        assert self.targets is not None
        return self.targets.field(name)

    @cached_property
    def gt_deltas(self) -> Tensor:
        """``(P, 4)``, the deltas that would be right."""
        return self.coder.encode(self.anchors, self.gt_boxes)

    @cached_property
    def boxes(self) -> Tensor:
        """``(P, 4)``, the predicted boxes."""
        return self.coder.decode(self.anchors, self.deltas)

    @cached_property
    def quality(self) -> Tensor:
        """``(P,)`` in [0, 1], the score that each positive deserves; without gradient.

        The assigner's, where it has one; else the IoU of the predicted box.
        """
        if self.assigned_scores is not None:
            return self.assigned_scores
        return matched_pairwise_iou(Boxes(self.boxes.detach()), Boxes(self.gt_boxes))


@dataclass(frozen=True, eq=False)
class NetworkInput:
    """What the backbone sees of a batch, and how that and the batch belong together.

    As it stands it is for images as large as the batch's, with nothing to learn beside the
    detector's losses. A front-end that resizes or learns returns a subclass.

    Attributes:
        images: ``(N, C, H, W)``, of any size; the detector pads it as the backbone needs.
        side: what else the front-end found, by name: for losses, and whoever has the predictions.
    """

    images: ImageList
    side: Mapping[str, Tensor] = field(default_factory=dict)

    def ground_truth(self, instances: Sequence[Instances]) -> Sequence[Instances]:
        """The batch's ground truth, and its ignored boxes, in the pixels of :attr:`images`."""
        return instances

    def restore(self, detections: Sequence[Instances]) -> list[Instances]:
        """The inverse: detections in the pixels of :attr:`images`, in those of the batch."""
        return list(detections)

    def extra_losses(
        self,
        predictions: Predictions,
        targets: DenseTargets,
        positives: PositiveBoxes,
        box_losses: Tensor,
    ) -> dict[str, Tensor]:
        """Sums by name, which the detector divides by the normalizer.

        Args:
            predictions, targets, positives: of the batch, in the pixels of :attr:`images`.
            box_losses: ``(P,)``, as the box loss gave them: with gradient, not weighted.
        """
        return {}


class FrontEnd(Protocol):
    """What stands before the backbone and decides what it sees.

    Attributes:
        out_channels: of the images that it returns, for which the backbone is built.
    """

    out_channels: int

    def __call__(
        self, images: ImageList, instances: Sequence[Instances] | None = None
    ) -> NetworkInput:
        """``images``: normalised, padded with 0; ``instances``: their ground truth, on the same
        device, in training, else None."""


class Assigner(Protocol):
    """Anchors x ground truth -> targets."""

    def __call__(
        self,
        anchors: Sequence[Boxes],
        instances: Sequence[Instances],
        num_classes: int,
        predictions: Predictions | None = None,
    ) -> DenseTargets:
        """``anchors``: one ``Boxes`` a level; ``instances``: one a image, ``gt_boxes`` and
        ``gt_classes`` at least; ``predictions``: for assigners that judge them."""


class ClassificationLoss(Protocol):
    """Loss of the class logits, summed over the batch."""

    def __call__(
        self, logits: Sequence[Tensor], targets: DenseTargets, positives: PositiveBoxes
    ) -> Tensor:
        """``logits``: a level's ``(N, A*K, H, W)`` each; ``positives``: for losses whose targets
        are the boxes' quality. Returns a scalar, not normalised."""


class BoxLoss(Protocol):
    """Loss of the positives' boxes, not summed, so that a weight per object can still apply."""

    def __call__(self, positives: PositiveBoxes) -> Tensor:
        """Returns ``(P,)``."""


class Normalizer(Protocol):
    """What the sums are divided by."""

    def __call__(self, num_positives: Tensor) -> Tensor:
        """``num_positives``: scalar tensor P; returns a positive scalar tensor."""


class PostProcessor(Protocol):
    """Head maps -> detections."""

    def __call__(
        self,
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        anchors: Sequence[Boxes],
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[Instances]:
        """One ``Instances`` an image: ``pred_boxes``, ``scores``, ``pred_classes``."""
