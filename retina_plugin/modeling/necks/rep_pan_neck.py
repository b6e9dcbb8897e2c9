"""A path aggregation network that becomes plain convolutions for deployment."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from retina_plugin.modeling.layers.rep_conv import RepConv2d
from retina_plugin.modeling.necks.pafpn_neck import PAFPNNeck
from retina_plugin.modeling.necks.stages import TOPS
from retina_plugin.registry import NECKS


def rep_layer(channels: int, *, stride: int, norm: str, depth: int) -> nn.Module:
    """So many blocks in a row; what halves the size is one."""
    return nn.Sequential(
        *(
            RepConv2d(
                in_channels=channels,
                out_channels=channels,
                stride=stride,
                norm=norm,
                key="MODEL.FPN.NORM of RepPANNeck",
            )
            for _ in range(depth if stride == 1 else 1)
        )
    )


@NECKS.register(defaults={"TOP": "C5", "DEPTH": 1}, choices={"TOP": TOPS})
class RepPANNeck(PAFPNNeck):
    """:class:`PAFPNNeck` whose 3x3 convolutions are RepVGG's blocks.

    A block has parallel branches in training and becomes one 3x3 convolution in
    ``optimize_for_inference``, see ``RepConv2d`` in ``modeling/layers/rep_conv.py``: in evaluation
    the neck costs, with one block each, what a ``PAFPNNeck`` does.

    Source: Li et al., YOLOv6, 2022, section 2.1 (Rep-PAN). There maps are concatenated and levels
    have different channels; here they are added as in PANet, so that the shared head's channels
    stay and blocks have their identity branch; the top-down path is linear, as in an FPN.

    Args:
        depth: number of blocks that replace each convolution of stride 1.

    The other arguments are :class:`PAFPNNeck`'s; ``norm`` is ``BN``, ``SyncBN`` or ``FrozenBN``.

    Raises:
        ValueError: another norm, or no block.
    """

    def __init__(self, *, depth: int = 1, **shared: Any) -> None:
        if depth < 1:
            raise ValueError(f"MODEL.NECK.RepPANNeck.DEPTH counts blocks, 1 or more, got {depth}")
        super().__init__(layer=partial(rep_layer, depth=depth), **shared)
