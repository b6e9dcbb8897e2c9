"""Activations computed a second time in the backward pass instead of kept."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


class CheckpointedSequential(nn.Sequential):
    """A ``Sequential`` that keeps the inputs of its children for the backward pass, and no more."""

    def forward(self, x: Tensor) -> Tensor:
        """Of the children in turn; outside training as any ``Sequential``."""
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(x)
        for child in self:
            learns = x.requires_grad or any(p.requires_grad for p in child.parameters())
            x = checkpoint(child, x, use_reentrant=False) if learns else child(x)
        return x


def checkpoint_backbone(backbone: nn.Module) -> int:
    """Make every stage of a backbone a :class:`CheckpointedSequential`, in place.

    Stages are the outermost ``Sequential`` s of ``backbone.bottom_up`` (of ``backbone`` where there
    is none): a ResNet's residual blocks, a MobileNet's inverted ones. Names and gradients stay.

    Returns:
        How many blocks there are in them.

    Raises:
        ValueError: there is none, or a block has a batch norm that learns: its statistics would
            count every batch twice.
    """
    bottom_up = getattr(backbone, "bottom_up", backbone)
    stages = list(_outermost_sequentials(bottom_up))
    if not stages:
        raise ValueError(
            f"MODEL.BACKBONE.GRADIENT_CHECKPOINTING: {type(bottom_up).__name__} has no stages in "
            "nn.Sequential that it could work on; see whether it has an option of its own, or set "
            "it to False"
        )
    for stage in stages:
        for name, module in stage.named_modules():
            if isinstance(module, _BatchNorm):
                raise ValueError(
                    f"MODEL.BACKBONE.GRADIENT_CHECKPOINTING computes every block twice, and the "
                    f"{type(module).__name__} {name} would count its batch twice: freeze the norms "
                    "(FrozenBN), use GN, or set it to False"
                )
    for stage in stages:
        # the class, not the object: Detectron2's ResNet keeps its stages in a list as well
        stage.__class__ = CheckpointedSequential
    return sum(len(stage) for stage in stages)


def _outermost_sequentials(module: nn.Module) -> Iterator[nn.Sequential]:
    for child in module.children():
        if type(child) is nn.Sequential:
            yield child
        else:
            yield from _outermost_sequentials(child)
