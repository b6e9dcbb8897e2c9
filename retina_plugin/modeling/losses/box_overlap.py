"""Predicted boxes beside the right ones: what the IoU losses share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

EPS = 1e-7  # fvcore's and Detectron2's


@dataclass(frozen=True, eq=False)
class BoxOverlap:
    """Two boxes each, ``(P, 4)``; everything is ``(P,)``.

    No mask and no assertion: on a GPU they would wait for the boxes, seven times a step.
    """

    boxes: Tensor
    gt_boxes: Tensor

    @cached_property
    def intersection(self) -> Tensor:
        """Area of both."""
        top_left = torch.maximum(self.boxes[:, :2], self.gt_boxes[:, :2])
        bottom_right = torch.minimum(self.boxes[:, 2:], self.gt_boxes[:, 2:])
        return (bottom_right - top_left).clamp(min=0).prod(dim=1)

    @cached_property
    def union(self) -> Tensor:
        """Area of either."""
        areas = [(x[:, 2:] - x[:, :2]).prod(dim=1) for x in (self.boxes, self.gt_boxes)]
        return areas[0] + areas[1] - self.intersection

    @cached_property
    def iou(self) -> Tensor:
        """Intersection over union."""
        return self.intersection / (self.union + EPS)

    @cached_property
    def hull(self) -> Tensor:
        """``(P, 2)``, sides of the smallest box around both."""
        top_left = torch.minimum(self.boxes[:, :2], self.gt_boxes[:, :2])
        return torch.maximum(self.boxes[:, 2:], self.gt_boxes[:, 2:]) - top_left

    @cached_property
    def distance(self) -> Tensor:
        """``d^2 / c^2``: of the centres, over the diagonal of the hull."""
        centres = [(x[:, :2] + x[:, 2:]) / 2 for x in (self.boxes, self.gt_boxes)]
        diagonal = self.hull.square().sum(dim=1) + EPS
        return (centres[0] - centres[1]).square().sum(dim=1) / diagonal
