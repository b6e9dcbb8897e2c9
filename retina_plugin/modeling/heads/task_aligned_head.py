"""TOOD's head: one tower, from which each task takes the features that it needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.layers import CycleBatchNormList, get_norm
from torch import Tensor, nn

from retina_plugin.modeling.heads.focal_retinanet_head import SHARED_DEFAULTS, FocalRetinaNetHead
from retina_plugin.modeling.heads.level_outputs import (
    layer_of,
    output_conv,
    output_layers,
    prior_bias,
)
from retina_plugin.modeling.heads.score_fusion import fuse_logits
from retina_plugin.registry import HEADS

_REDUCTION = 8  # channels of the hidden layers of attention and alignment are C / 8 and C / 4


class TaskDecomposition(nn.Module):
    """A task's own features, out of those of all L layers of the shared tower.

    ``Z = relu(norm(conv_1x1([w_1 X_1, ..., w_L X_L])))``, where
    ``w = sigmoid(fc_2(relu(fc_1(mean over the cells of [X_1, ..., X_L]))))``.

    Source: Feng et al., TOOD, 2021, equations 2 and 3.

    Args:
        channels: C of each layer.
        num_layers: L.
        norm: of Z.
    """

    def __init__(self, *, channels: int, num_layers: int, norm: nn.Module) -> None:
        super().__init__()
        stacked, hidden = channels * num_layers, max(channels // _REDUCTION, 1)
        self.attention = nn.Sequential(
            nn.Conv2d(stacked, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, num_layers, 1), nn.Sigmoid()
        )
        self.reduction = nn.Conv2d(stacked, channels, 1)
        self.norm = norm
        _start(self.attention[0], 0.001)
        _start(self.attention[2], 0.001)
        _start(self.reduction, 0.01)

    def forward(self, stack: Tensor) -> Tensor:
        """``(N, L*C, H, W) -> (N, C, H, W)``.

        The weights of the layers go into the convolution's, of which there is then one an image:
        the other way round it would take a copy of the whole stack.
        """
        layers = self.attention(stack.mean(dim=(2, 3), keepdim=True)).flatten(1)  # (N, L)
        weight = self.reduction.weight.view(1, -1, layers.shape[1], self.reduction.out_channels)
        weight = (weight * layers[:, None, :, None]).flatten(2)  # (N, C, L*C)
        maps = (weight @ stack.flatten(2)).unflatten(2, stack.shape[2:])
        return self.norm(maps + self.reduction.bias.view(-1, 1, 1)).relu()


@HEADS.register(defaults=SHARED_DEFAULTS)
class TaskAlignedHead(FocalRetinaNetHead):
    """TOOD's task-aligned head, without deformable convolutions.

    One tower of convolutions for both tasks; each task weighs the layers of the tower by itself
    (:class:`TaskDecomposition`). The score is the geometric mean of the class's and of an alignment
    map's, one an anchor: ``sqrt(sigmoid(s) sigmoid(m))``, given as logits.

    The paper's head has six convolutions and group norm: ``MODEL.RETINANET.NUM_CONVS: 6`` and
    ``NORM: GN``. Its tower is called ``tower``, the output layers have Detectron2's names.

    Source: Feng et al., TOOD: Task-aligned One-stage Object Detection, 2021, section 3.1. The
    paper's head moreover moves each side of a box to where a neighbouring cell sees it (equation
    5), by a deformable convolution: left out, as it has no fast kernel on the CPU. The boxes are
    the box coder's, not distances to the sides.

    The arguments are :class:`FocalRetinaNetHead`'s.

    Raises:
        ValueError: no convolution, or convolutions of different numbers of channels.
    """

    @configurable
    def __init__(
        self,
        *,
        conv_dims: Sequence[int],
        norm: str = "",
        prior_prob: float = 0.01,
        **shared: Any,
    ) -> None:
        if not conv_dims or len(set(conv_dims)) > 1:
            raise ValueError(
                "TaskAlignedHead needs one convolution or more (MODEL.RETINANET.NUM_CONVS), all of "
                f"the same number of channels, got conv_dims {list(conv_dims)}"
            )
        super().__init__(conv_dims=conv_dims, norm=norm, prior_prob=prior_prob, **shared)
        self.tower = self.cls_subnet
        del self.cls_subnet, self.bbox_subnet
        num_layers, levels = len(conv_dims), len(self.counts)
        self.cls_decomposition, self.bbox_decomposition = (
            TaskDecomposition(
                channels=self.channels,
                num_layers=num_layers,
                norm=_norm(norm, self.channels, levels),
            )
            for _ in range(2)
        )
        hidden, bias = max(self.channels // 4, 1), prior_bias(prior_prob)
        reduction = nn.Conv2d(self.channels * num_layers, hidden, 1)
        _start(reduction, 0.01)
        self.alignment_reduction = nn.Sequential(reduction, nn.ReLU())
        self.alignment = output_layers(self.counts, lambda count: output_conv(hidden, count, bias))

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """``(N, C, H, W)`` a level -> logits ``(N, A*K, H, W)``, deltas ``(N, A*D, H, W)``."""
        features = self.level_inputs(features)
        logits, deltas = [], []
        for level, (count, feature) in enumerate(zip(self.counts, features, strict=True)):
            stack = self._layers(feature)
            classes = self.classify(level, self.cls_decomposition(stack))
            alignment = layer_of(self.alignment, count)(self.alignment_reduction(stack))
            logits.append(fuse_logits(classes, alignment))
            deltas.append(self.regress(level, self.bbox_decomposition(stack)))
        return logits, deltas

    def _layers(self, x: Tensor) -> Tensor:
        """What all layers of the tower give: ``(N, L*C, H, W)``."""
        found = []
        for layer in self.tower:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                found.append(x)
        return torch.cat(found, dim=1)


def _start(conv: nn.Conv2d, std: float) -> None:
    nn.init.normal_(conv.weight, std=std)
    nn.init.zeros_(conv.bias)


def _norm(norm: str, channels: int, num_levels: int) -> nn.Module:
    """As in the towers of Detectron2's head: batch norms see the levels apart."""
    if norm in ("BN", "SyncBN"):
        bn_class = nn.BatchNorm2d if norm == "BN" else nn.SyncBatchNorm
        return CycleBatchNormList(length=num_levels, bn_class=bn_class, num_features=channels)
    return get_norm(norm, channels) or nn.Identity()
