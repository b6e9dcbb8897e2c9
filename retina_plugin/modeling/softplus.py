"""``log(1 + exp(x))``, as quick on a CPU as its logarithm."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def softplus(x: Tensor) -> Tensor:
    """``log(1 + exp(x))``, elementwise; 0 at -inf. Without gradient.

    PyTorch's spends nine tenths of its time on the CPU in ``log1p``, eight times as slow there as
    ``log``. So with ``t = exp(-|x|)`` and ``u = 1 + t`` as it is rounded::

        softplus(x) = max(x, 0) + log(u) + (t - (u - 1)) / u

    The last term is what rounding u took away, to first order: without it small t would be lost.
    The relative error is 2e-7 in fp32, PyTorch's 1e-7. On a GPU one kernel beats nine: there it is
    PyTorch's.
    """
    if x.device.type != "cpu":
        return F.softplus(x.detach())
    with torch.no_grad():
        tail = x.abs().neg_().exp_()
        rounded = tail + 1
        rest = tail.sub_(rounded - 1).div_(rounded)
        return rounded.log_().add_(rest).add_(x.clamp(min=0))
