"""Measures of boxes that more than one family of components needs."""

from __future__ import annotations

import torch
from torch import Tensor


def centreness(anchors: Tensor, boxes: Tensor) -> Tensor:
    """``sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b))`` of the anchors' centres in the boxes.

    ``(P, 4), (P, 4) -> (P,)`` in [0, 1]; 0 for a centre that is outside.

    Source: Tian et al., FCOS, 2019, equation 3.
    """
    centre = (anchors[:, :2] + anchors[:, 2:]) / 2
    before, after = (centre - boxes[:, :2]).clamp(min=0), (boxes[:, 2:] - centre).clamp(min=0)
    largest = torch.maximum(before, after).clamp(min=torch.finfo(boxes.dtype).tiny)
    return (torch.minimum(before, after) / largest).prod(dim=1).sqrt()
