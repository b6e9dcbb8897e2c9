"""An example of a head with outputs of its own: where corners are, to correct the boxes with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torch.nn import functional as F

from retina_plugin.modeling.abilities import ExtraLosses, Refinement
from retina_plugin.modeling.contracts import (
    DenseTargets,
    PositiveBoxes,
    Predictions,
    ignored_boxes,
)
from retina_plugin.modeling.heads.focal_retinanet_head import SHARED_DEFAULTS, FocalRetinaNetHead
from retina_plugin.modeling.heads.level_outputs import output_conv, prior_bias
from retina_plugin.registry import HEADS

KEY = "MODEL.RETINANET.HEAD.CornerHead"
_LARGEST_MOVE = 0.25  # of a corner, in sides of its box: none can cross another
_REACH = 3  # cells; what a corner's bell, of a deviation of one cell, is beyond is below 0.02


@HEADS.register(
    defaults={**SHARED_DEFAULTS, "LOSS_WEIGHT": 1.0, "SEARCH_CELLS": 2, "MIN_SCORE": 0.3}
)
class CornerHead(FocalRetinaNetHead, ExtraLosses, Refinement):
    """:class:`FocalRetinaNetHead` that also finds corners, and moves the detections' to them.

    Two more maps on the box tower of the finest level say where any object's top left and bottom
    right corner is: bells of a deviation of one cell around the corner, learned by a focal loss
    ``sum |y - p|^2 BCE(p, y)`` (``loss_corner``) over all cells that are not ignored. After the
    suppression each corner of a detection becomes the mean of itself and the best corner near it,
    weighted by their scores, if that is no farther than a quarter of the box's side.

    Source: Lv et al., Anchor-Intermediate Detector, 2023, in the spirit only. There a group of
    boxes that NMS would suppress gives its corners away and gets the best pair back; here the
    corners come from the maps, without offsets (a bell tells its centre to a fraction of a cell)
    and without classes. The loss is quality focal loss (Li et al. 2020, equation 5). Objects count
    alike: ``gt_weight`` is for the other losses.

    Args:
        loss_weight: weight of ``loss_corner``.
        search_cells: distance in cells around a detection's corner in which corners are searched.
        min_score: smallest score of a corner that moves a box.

    The other arguments are :class:`FocalRetinaNetHead`'s; the first of ``input_shape`` has a
    ``stride``.

    Raises:
        ValueError: a setting is out of its range, or the stride is missing.
    """

    @configurable
    def __init__(
        self,
        *,
        input_shape: list[ShapeSpec],
        prior_prob: float = 0.01,
        loss_weight: float = 1.0,
        search_cells: int = 2,
        min_score: float = 0.3,
        **shared: Any,
    ) -> None:
        super().__init__(input_shape=input_shape, prior_prob=prior_prob, **shared)
        if not loss_weight >= 0:
            raise ValueError(f"{KEY}.LOSS_WEIGHT must be 0 or more, got {loss_weight}")
        if not (isinstance(search_cells, int) and search_cells >= 0):
            raise ValueError(f"{KEY}.SEARCH_CELLS counts cells, 0 or more, got {search_cells}")
        if not 0 < min_score <= 1:
            raise ValueError(f"{KEY}.MIN_SCORE must be in (0, 1], got {min_score}")
        self.stride = input_shape[0].stride
        if self.stride is None:
            raise ValueError(
                "CornerHead must know how many pixels a cell has: give the first of input_shape a "
                "stride, as in ShapeSpec(channels=256, stride=8)"
            )
        self.loss_weight = loss_weight
        self.search_cells = search_cells
        self.min_score = min_score
        bias = prior_bias(prior_prob)
        self.corners = output_conv(self.channels, 2, bias)

    def forward(
        self, features: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor], dict[str, list[Tensor]]]:
        """Logits and deltas as the parent, and ``corners``: logits ``(N, 2, H, W)`` of P3."""
        logits, deltas, corners = [], [], []
        for level, feature in enumerate(self.level_inputs(features)):
            tower = self.bbox_subnet(feature)
            if level == 0:
                corners.append(self.corners(tower))
            logits.append(self.classify(level, self.cls_subnet(feature)))
            deltas.append(self.regress(level, tower))
        return logits, deltas, {"corners": corners}

    def extra_losses(
        self, predictions: Predictions, targets: DenseTargets, positives: PositiveBoxes
    ) -> dict[str, Tensor]:
        """``loss_corner``; see :class:`retina_plugin.modeling.abilities.ExtraLosses`."""
        logits = predictions.extras["corners"][0].float()
        size = logits.shape[2:]
        wanted = torch.stack(
            [self._bells(x.gt_boxes.tensor.to(logits.dtype), size) for x in targets.instances]
        )
        losses = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        losses = losses * (wanted - logits.sigmoid()).square()
        unknown = torch.stack([self._unknown(x, logits) for x in targets.instances])
        losses = losses.masked_fill(unknown[:, None] & (wanted == 0), 0)
        return {"loss_corner": losses.sum() * self.loss_weight}

    @torch.no_grad()
    def refine(self, detections: Sequence[Instances], predictions: Predictions) -> list[Instances]:
        """See :class:`retina_plugin.modeling.abilities.Refinement`."""
        maps = predictions.extras["corners"][0].float().sigmoid()
        refined = []
        for found, own in zip(detections, maps, strict=True):
            boxes = self._moved(found.pred_boxes.tensor, found.scores, own)
            fields = {**found.get_fields(), "pred_boxes": Boxes(boxes)}
            refined.append(Instances(found.image_size, **fields))
        return refined

    def _cells(self, boxes: Tensor) -> Tensor:
        """``(n, 4)`` pixels -> ``(n, 2, 2)``: x and y of both corners; 0 is a cell's middle."""
        return boxes.view(-1, 2, 2) / self.stride - 0.5

    def _bells(self, boxes: Tensor, size: Sequence[int]) -> Tensor:
        """``(2, H, W)``: what the maps shall say; the higher of two bells."""
        corners = self._cells(boxes)[:, :, None]
        cells = corners.round() + _window(_REACH, boxes)
        heights = (cells - corners).square().sum(dim=3).mul(-0.5).exp()
        index, inside = _index(cells, size)
        bells = boxes.new_zeros(2 * size[0] * size[1])
        bells.scatter_reduce_(0, index.flatten(), (heights * inside).flatten(), "amax")
        return bells.view(2, *size)

    def _unknown(self, instances: Instances, maps: Tensor) -> Tensor:
        """``(H, W)``: the cells in regions where no background shall be learnt."""
        height, width = maps.shape[2:]
        regions = ignored_boxes(instances)
        if regions is None:
            return torch.zeros(height, width, dtype=torch.bool, device=maps.device)
        left_top, right_bottom = self._cells(regions).unbind(1)
        x, y = (torch.arange(n, device=maps.device)[:, None] for n in (width, height))
        across = (x >= left_top[:, 0]) & (x <= right_bottom[:, 0])  # (W, I)
        down = (y >= left_top[:, 1]) & (y <= right_bottom[:, 1])
        return (down[:, None] & across).any(dim=2)

    def _moved(self, boxes: Tensor, scores: Tensor, maps: Tensor) -> Tensor:
        """``(n, 4)`` boxes, corrected by what ``(2, H, W)`` scores of corners say."""
        corners = self._cells(boxes)  # (n, 2, 2)
        reach = (corners[:, 1:] - corners[:, :1]) * _LARGEST_MOVE
        cells = corners[:, :, None].round() + _window(self.search_cells, boxes)
        near = ((cells - corners[:, :, None]).abs() <= reach[:, :, None] + 0.5).all(dim=3)
        best, which = (_read(maps, cells) * near).max(dim=2)
        found = cells.gather(2, which[:, :, None, None].expand(-1, -1, -1, 2))  # (n, 2, 1, 2)
        # the logarithm of a bell is a parabola: its slope at the best cell tells the distance
        sides = boxes.new_tensor([[-1, 0], [0, -1], [1, 0], [0, 1]])
        before, after = _read(maps, found + sides).unflatten(2, (2, 2)).unbind(2)
        found = found.squeeze(2) + (after.log() - before.log()).div(2).clamp(-0.5, 0.5)
        good = (best >= self.min_score) & ((found - corners).abs() <= reach).all(dim=2)
        good &= (torch.minimum(before, after) > 0).all(dim=2)  # else at the map's border: unknown
        weight = best / (best + scores[:, None])
        moved = (torch.lerp(corners, found, weight[:, :, None]) + 0.5) * self.stride
        return torch.where(good[:, :, None], moved, boxes.view(-1, 2, 2)).flatten(1)


def _window(reach: int, like: Tensor) -> Tensor:
    """``((2 * reach + 1)^2, 2)``: x and y of the cells around one."""
    side = torch.arange(-reach, reach + 1, device=like.device, dtype=like.dtype)
    return torch.cartesian_prod(side, side)


def _index(cells: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """``(n, 2, w, 2)`` cells -> their index into flat ``(2, H, W)`` maps, and which lie inside."""
    height, width = size
    x, y = cells.unbind(3)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y = x.clamp(0, width - 1).long(), y.clamp(0, height - 1).long()
    corner = torch.arange(2, device=cells.device)[:, None]
    return (corner * height + y) * width + x, inside


def _read(maps: Tensor, cells: Tensor) -> Tensor:
    """Values of ``(2, H, W)`` maps at ``(n, 2, w, 2)`` cells; 0 outside."""
    index, inside = _index(cells, maps.shape[1:])
    return maps.reshape(-1)[index] * inside
