"""Activations computed a second time in the backward pass instead of kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from detectron2.layers import CNNBlockBase
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from retina_plugin.modeling.pretrained_part import pretrained_part


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


class CheckpointedBlock:
    """Mixin of a block that keeps its inputs for the backward pass, and no more."""

    def forward(self, *inputs: Any) -> Any:
        """The block's; outside training as it is."""
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(*inputs)
        return checkpoint(super().forward, *inputs, use_reentrant=False)


def checkpoint_backbone(backbone: nn.Module) -> int:
    """Make the blocks of a backbone keep their inputs alone, in place.

    Of the pretrained network (under the neck), blocks are the children of its outermost
    ``Sequential`` s: a ResNet's residual blocks, a MobileNet's inverted ones; where it has none,
    Detectron2's ``CNNBlockBase`` s (RegNet), else the items of its innermost ``ModuleList`` s
    (Swin, MViT, ViT). Names and gradients stay.

    Returns:
        How many blocks there are.

    Raises:
        ValueError: there is none, or one has a batch norm that learns: its statistics would count
            every batch twice.
    """
    _, network = pretrained_part(backbone)
    stages = [m for m in _outermost(network) if type(m) is nn.Sequential]
    blocks = [m for m in _outermost(network) if isinstance(m, CNNBlockBase)]
    blocks = [] if stages else blocks or list(_items_of_lists(network))
    if not stages and not blocks:
        raise ValueError(
            f"MODEL.BACKBONE.GRADIENT_CHECKPOINTING: {type(network).__name__} has no stages in "
            "nn.Sequential and no blocks in nn.ModuleList that it could work on; see whether it "
            "has an option of its own, or set it to False"
        )
    for part in (*stages, *blocks):
        for name, module in part.named_modules():
            if isinstance(module, _BatchNorm):
                raise ValueError(
                    f"MODEL.BACKBONE.GRADIENT_CHECKPOINTING computes every block twice, and the "
                    f"{type(module).__name__} {name} would count its batch twice: freeze the norms "
                    "(FrozenBN), use GN, or set it to False"
                )
    for stage in stages:
        # the class, not the object: Detectron2's ResNet keeps its stages in a list as well
        stage.__class__ = CheckpointedSequential
    for block in blocks:
        kind = type(block)
        block.__class__ = type(f"Checkpointed{kind.__name__}", (CheckpointedBlock, kind), {})
    return sum(len(stage) for stage in stages) + len(blocks)


def _outermost(module: nn.Module) -> Iterator[nn.Module]:
    """Sequentials and Detectron2's residual blocks that are in no other such."""
    for child in module.children():
        if type(child) is nn.Sequential or isinstance(child, CNNBlockBase):
            yield child
        else:
            yield from _outermost(child)


def _items_of_lists(module: nn.Module) -> Iterator[nn.Module]:
    """Of every ``ModuleList`` in which there is no other."""
    for child in module.modules():
        inner = [m for m in child.modules() if isinstance(m, nn.ModuleList)]
        if inner == [child]:
            yield from child
