"""One score out of two, in logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def fuse_logits(logits: Tensor, other: Tensor, powers: Sequence[float] = (0.5, 0.5)) -> Tensor:
    """``logit(sigmoid(x)^a sigmoid(y)^b)``, by default the geometric mean; differentiable.

    With ``L = a log sigmoid(x) + b log sigmoid(y)`` it is ``L - log(1 - exp(L))``: exact for scores
    near 0 as for those near 1, and no gradient is infinite. Where nobody asks for gradients, the
    scores are multiplied, in a quarter of the time: the result's sigmoid is right, if not its tail.

    Args:
        logits: ``(N, A*K, H, W)``, x.
        other: ``(N, A, H, W)``, y: one an anchor, for all its classes.
        powers: ``(a, b)``, 0 or more.

    Returns:
        ``(N, A*K, H, W)`` in fp32 at least.
    """
    x, y = (m.to(torch.promote_types(m.dtype, torch.float32)) for m in (logits, other))
    x, y = x.unflatten(1, (other.shape[1], -1)), y.unsqueeze(2)
    if torch.is_grad_enabled() and (x.requires_grad or y.requires_grad):
        return _of_logarithms(x, y, *powers).flatten(1, 2)
    return _of_scores(x, y, *powers).flatten(1, 2)


def _of_logarithms(x: Tensor, y: Tensor, a: float, b: float) -> Tensor:
    log_score = F.logsigmoid(x) * a + F.logsigmoid(y) * b
    log_score = log_score.clamp(max=-torch.finfo(x.dtype).tiny)  # a score of 1 has no logit
    return log_score - torch.log(-torch.expm1(log_score))


def _of_scores(x: Tensor, y: Tensor, a: float, b: float) -> Tensor:
    """In place but for the first sigmoid: these are passes over all logits of the model."""
    scores = x.sigmoid()
    if a != 1:
        scores.pow_(a)
    scores.mul_(y.sigmoid().pow(b))
    return scores.logit_()
