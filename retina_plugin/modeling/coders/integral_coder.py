"""Boxes as four distributions of distances."""

from __future__ import annotations

import torch
from torch import Tensor

from retina_plugin.modeling.contracts import BoxCoder
from retina_plugin.registry import BOX_CODERS


@BOX_CODERS.register(defaults={"REG_MAX": 16, "UNIT": 0.125})
class IntegralBoxCoder(BoxCoder):
    """Distances from the anchor's centre to the box's left, top, right and bottom side.

    Of each, the head predicts a distribution over 0, 1, ..., n units, whose expectation decoding
    takes: ``sum_i softmax(x)_i i``. A unit is a part of the anchor's size, ``unit sqrt(w h)``.

    Source: Li et al., Generalized Focal Loss, 2020, section 3.2 (n = 16). There a unit is the
    level's stride, an eighth of the anchor's size.

    Args:
        reg_max: number of intervals n of each side's distribution.
        unit: length of an interval, as a share of the anchor's size.

    Raises:
        ValueError: ``reg_max`` is not a positive whole number, or ``unit`` not positive.
    """

    def __init__(self, *, reg_max: int = 16, unit: float = 0.125) -> None:
        node = "MODEL.RETINANET.BOX_CODER.IntegralBoxCoder"
        if not isinstance(reg_max, int) or reg_max < 1:
            raise ValueError(f"{node}.REG_MAX must be a whole number above 0, got {reg_max}")
        if not unit > 0:
            raise ValueError(f"{node}.UNIT must be above 0, got {unit}")
        self.reg_max = reg_max
        self.unit = unit

    @property
    def dim(self) -> int:
        """D: ``4 (n + 1)``, side by side."""
        return 4 * (self.reg_max + 1)

    def encode(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """``(P, 4), (P, 4) -> (P, 4)`` distances in units, as far as they can be predicted.

        Short of n by 0.01, so that the unit above exists; the authors' code has 0.1.
        """
        centre, unit = self._centre_and_unit(anchors)
        distances = torch.cat([centre - boxes[:, :2], boxes[:, 2:] - centre], dim=1) / unit
        return distances.clamp(0, self.reg_max - 0.01)

    def decode(self, anchors: Tensor, deltas: Tensor) -> Tensor:
        """``(P, 4), (P, D) -> (P, 4)`` boxes, in fp32 at least."""
        deltas = deltas.to(torch.promote_types(deltas.dtype, torch.float32))
        share = deltas.reshape(-1, 4, self.reg_max + 1).softmax(dim=2)
        steps = torch.arange(self.reg_max + 1, device=deltas.device, dtype=deltas.dtype)
        centre, unit = self._centre_and_unit(anchors)
        distances = (share @ steps) * unit
        return torch.cat([centre - distances[:, :2], centre + distances[:, 2:]], dim=1)

    def _centre_and_unit(self, anchors: Tensor) -> tuple[Tensor, Tensor]:
        size = (anchors[:, 2:] - anchors[:, :2]).prod(dim=1, keepdim=True).sqrt()
        return (anchors[:, :2] + anchors[:, 2:]) / 2, size * self.unit
