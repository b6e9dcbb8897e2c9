"""The sum that every loss of the focal family shares: dense background, sparse objects.

Nearly every anchor is background, and its term needs nothing but its own logit. So the background
term and its analytic gradient are computed in one pass over the head's raw maps, with no transpose,
one-hot target or masked copy; the few entries that are no background are cut out before the pass,
and what the objects contribute is written into the same gradient afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from retina_plugin.modeling.contracts import DenseTargets

Background = Callable[..., Tensor]
"""Logits -> sum of their losses; overwrites each logit by d loss / d logit; both are 0 at -inf.

Where numbers a class are given to :func:`dense_sum`, they follow the logits, broadcast to them.
"""

Objects = Callable[[Tensor], Tensor]
"""``(P,)`` logits of the positives' own classes -> ``(P,)`` losses, by ordinary autograd."""

Observer = Callable[[Tensor, Tensor], None]
"""``(K,)`` sums of the absolute gradients: of the positives' own classes, of all else."""

CHUNK = 1 << 18  # entries a pass: the temporaries stay in a CPU's caches, the calls cost little


def dense_sum(
    logits: Sequence[Tensor],
    targets: DenseTargets,
    background: Background,
    objects: Objects,
    *,
    per_class: Sequence[Tensor] = (),
    observe: Observer | None = None,
) -> Tensor:
    """Sum of ``background`` over all logits, but ``objects`` at the positives, 0 where ignored.

    Args:
        logits: a level's ``(N, A*K, H, W)`` each.
        targets: see :class:`~retina_plugin.modeling.contracts.DenseTargets`.
        background: term of an entry whose target is 0.
        objects: term of the entry of a positive anchor's own class.
        per_class: further arguments of ``background``, ``(K,)`` each.
        observe: is told the gradients of this sum, where there are any.

    Returns:
        Scalar; computed in fp32 at least, whatever the logits' type.
    """
    return _DenseSum.apply(targets, background, objects, tuple(per_class), observe, *logits)


def weighted(losses: Tensor, targets: DenseTargets) -> Tensor:
    """The positives' losses ``(P,)`` times ``gt_weight``, where the ground truth has it."""
    return losses if targets.weights is None else losses * targets.weights


def shifted(gamma: float | Tensor, targets: DenseTargets) -> float | Tensor:
    """The positives' exponent: gamma less ``gt_gamma_shift`` where there is one, 0 at least.

    Source: the safety-adapted loss for pedestrian detection, whose exponent is
    ``gamma - kappa`` for an object that matters by kappa.
    """
    shifts = targets.gamma_shifts
    return gamma if shifts is None else (gamma - shifts).clamp(min=0)


class _DenseSum(torch.autograd.Function):
    """The forward pass fills one buffer per map with the gradient, the backward pass scales it."""

    @staticmethod
    def forward(
        ctx: Any,
        targets: DenseTargets,
        background: Background,
        objects: Objects,
        per_class: tuple[Tensor, ...],
        observe: Observer | None,
        *logits: Tensor,
    ) -> Tensor:
        own_class = [_own_class_entries(targets, map_, i) for i, map_ in enumerate(logits)]
        total, object_gradients = _object_loss(
            objects,
            [map_[at] for map_, at in zip(logits, own_class, strict=True)],
            any(ctx.needs_input_grad),
        )
        watched = observe is not None and any(ctx.needs_input_grad)
        seen = logits[0].new_zeros(targets.num_classes, dtype=torch.float32)
        gradients = []
        for level, (map_, at) in enumerate(zip(logits, own_class, strict=True)):
            buffer = map_.detach().to(
                _working_type(map_.dtype), copy=True, memory_format=_memory_format(map_)
            )
            buffer[at] = -torch.inf
            _cut_out_ignored(targets, buffer, level)
            total = total + _background_pass(background, buffer, per_class)
            if watched:
                seen += _by_class(buffer, targets.num_classes)
            buffer[at] = object_gradients[level]
            gradients.append(buffer)
        if watched:
            own = torch.cat(list(object_gradients)).abs().to(seen)
            observe(torch.zeros_like(seen).index_add_(0, targets.classes, own), seen)
        ctx.save_for_backward(*gradients)
        ctx.dtypes = [map_.dtype for map_ in logits]
        return total

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "this loss has first derivatives only (its gradient is analytic), but the backward "
                "pass ran with create_graph=True"
            )
        # to fp16 only after the loss scale is in: without it most gradients would underflow there
        gradients = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        return *(None,) * 5, *((g * grad_output).to(dtype) for g, dtype in gradients)


def _working_type(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _own_class_entries(targets: DenseTargets, map_: Tensor, level: int) -> tuple[Tensor, ...]:
    """Index of the positives' own-class logits in one level's map."""
    selection = targets.positives
    image, channel, y, x = selection.index_level(level, map_, targets.num_classes)
    start = sum(selection.level_counts[:level])
    classes = targets.classes[start : start + selection.level_counts[level]]
    return image, channel + classes, y, x


def _cut_out_ignored(targets: DenseTargets, buffer: Tensor, level: int) -> None:
    """Set all logits of the ignored anchors of one level to -inf, where the background is 0."""
    image, channel, y, x = targets.ignored.index_level(level, buffer, targets.num_classes)
    entry = torch.arange(targets.num_classes, device=buffer.device)
    buffer[image[:, None], channel[:, None] + entry, y[:, None], x[:, None]] = -torch.inf


def _object_loss(
    objects: Objects, logits: Sequence[Tensor], needs_gradient: bool
) -> tuple[Tensor, Sequence[Tensor]]:
    """Sum of the positives' losses and its gradient (or 0), split by level like ``logits``."""
    joined = torch.cat([x.detach().to(_working_type(x.dtype)) for x in logits])
    gradient = torch.zeros_like(joined)
    with torch.set_grad_enabled(needs_gradient):
        loss = objects(joined.requires_grad_(needs_gradient)).sum()
        if needs_gradient:
            (gradient,) = torch.autograd.grad(loss, joined)
    return loss.detach(), gradient.split([len(x) for x in logits])


def _memory_format(map_: Tensor) -> torch.memory_format:
    """The map's own, which is what the convolution before it wants its gradient in."""
    if map_.is_contiguous() or not map_.is_contiguous(memory_format=torch.channels_last):
        return torch.contiguous_format
    return torch.channels_last


def _flat(buffer: Tensor) -> Tensor:
    """A view of all entries, in the order of the memory."""
    return (buffer if buffer.is_contiguous() else buffer.permute(0, 2, 3, 1)).view(-1)


def _by_class(buffer: Tensor, num_classes: int) -> Tensor:
    """``(N, A*K, H, W) -> (K,)``: sums of absolute values."""
    return buffer.abs().sum((0, 2, 3)).view(-1, num_classes).sum(dim=0).float()


def _background_pass(
    background: Background, buffer: Tensor, per_class: tuple[Tensor, ...]
) -> Tensor:
    """Sum of the background term over ``buffer``, which is overwritten by its gradient."""
    if per_class:
        return _background_pass_by_class(background, buffer, per_class)
    flat = _flat(buffer)
    # a GPU has no cache to fit and pays per kernel: there the whole map is one chunk
    chunks = flat.split(CHUNK) if flat.device.type == "cpu" else (flat,)
    sums = [background(chunk) for chunk in chunks if len(chunk)]
    return torch.stack(sums).sum() if sums else flat.sum()


def _background_pass_by_class(
    background: Background, buffer: Tensor, per_class: tuple[Tensor, ...]
) -> Tensor:
    """The same in rows over which the numbers a class can be broadcast."""
    images, channels, height, width = buffer.shape
    values = [x.to(buffer).repeat(channels // len(x)) for x in per_class]
    if buffer.is_contiguous():
        rows = buffer.view(images * channels, height * width)
        values = [x.repeat(images)[:, None] for x in values]
    else:
        rows = buffer.permute(0, 2, 3, 1).view(images * height * width, channels)
        values = [x.expand(len(rows), -1) for x in values]
    size = max(1, CHUNK // max(rows.shape[1], 1)) if rows.device.type == "cpu" else len(rows)
    sums = [
        background(*parts)
        for parts in zip(rows.split(size), *(x.split(size) for x in values), strict=True)
        if parts[0].numel()
    ]
    return torch.stack(sums).sum() if sums else rows.sum()
