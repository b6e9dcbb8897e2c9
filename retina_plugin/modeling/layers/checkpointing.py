"""Activations computed a second time in the backward pass instead of kept."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from detectron2.layers import CNNBlockBase
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from retina_plugin.modeling.layers.folded_conv import FoldedSequential
from retina_plugin.modeling.layers.swapping import swap_modules
from retina_plugin.modeling.pretrained_part import pretrained_part


class CheckpointedBlock(nn.Module):
    """A block that keeps only its inputs for the backward pass.

    Parameters, buffers, submodules and hooks are those of the block and have the same names; other
    attributes are read from the block and written to it.

    Args:
        block: is not registered as a submodule.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        shared = vars(block)
        vars(self).update({name: shared[name] for name in vars(self) if name in shared})
        vars(self)["block"] = block

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The output of the block, which outside training is called as it is."""
        block = self.block
        if not (self.training and torch.is_grad_enabled()) or not (
            any(isinstance(x, Tensor) and x.requires_grad for x in tree_leaves((args, kwargs)))
            or any(p.requires_grad for p in block.parameters())
        ):
            return block.forward(*args, **kwargs)
        return checkpoint(partial(block.forward, **kwargs), *args, use_reentrant=False)

    def train(self, mode: bool = True) -> CheckpointedBlock:
        """As of the block, which may have a method of its own."""
        self.block.train(mode)
        vars(self)["training"] = self.block.training
        return self

    def extra_repr(self) -> str:
        """The class of the block, and what the block says of itself."""
        return ", ".join(filter(None, (type(self.block).__name__, self.block.extra_repr())))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "block" not in vars(self):  # while it is being copied or unpickled
                raise
            return getattr(self.block, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in vars(self) or "block" not in vars(self):
            super().__setattr__(name, value)
        else:
            setattr(self.block, name, value)


def checkpoint_backbone(backbone: nn.Module) -> int:
    """Make the blocks of a backbone keep only their inputs, in place.

    Blocks are found in the pretrained network (under the neck): the children of its outermost
    ``Sequential`` s (a ResNet's residual blocks, a MobileNet's inverted ones); where there are
    none, Detectron2's ``CNNBlockBase`` s (RegNet), else the items of its innermost ``ModuleList`` s
    (Swin, MViT, ViT). Names and gradients stay.

    Returns:
        The number of blocks.

    Raises:
        ValueError: if there are none, or if one has a batch norm that learns: its statistics would
            count every batch twice.
    """
    _, network = pretrained_part(backbone)
    stages = [m for m in _outermost(network) if isinstance(m, nn.Sequential)]
    blocks = [child for stage in stages for child in stage]
    blocks = blocks or [m for m in _outermost(network) if isinstance(m, CNNBlockBase)]
    blocks = blocks or list(_items_of_lists(network))
    if not blocks:
        raise ValueError(
            f"MODEL.BACKBONE.GRADIENT_CHECKPOINTING: {type(network).__name__} has no stages in "
            "nn.Sequential and no blocks in nn.ModuleList that it could work on; see whether it "
            "has an option of its own, or set it to False"
        )
    for block in blocks:
        for name, module in block.named_modules():
            if isinstance(module, _BatchNorm):
                raise ValueError(
                    f"MODEL.BACKBONE.GRADIENT_CHECKPOINTING computes every block twice, and the "
                    f"{type(module).__name__} {name} would count its batch twice: freeze the norms "
                    "(FrozenBN), use GN, or set it to False"
                )
    new = {m: CheckpointedBlock(m) for m in blocks if not isinstance(m, CheckpointedBlock)}
    swap_modules(network, new.get)
    return len(blocks)


def without_checkpointing(model: nn.Module) -> nn.Module:
    """Put the blocks themselves back in the place of :class:`CheckpointedBlock` s, in place."""
    return swap_modules(model, lambda m: m.block if isinstance(m, CheckpointedBlock) else None)[0]


def _outermost(module: nn.Module) -> Iterator[nn.Module]:
    """Sequentials and Detectron2's residual blocks that are in no other such."""
    for child in module.children():
        if type(child) in (nn.Sequential, FoldedSequential) or isinstance(child, CNNBlockBase):
            yield child
        else:
            yield from _outermost(child)


def _items_of_lists(module: nn.Module) -> Iterator[nn.Module]:
    """The items of every ``ModuleList`` that contains no other."""
    for child in module.modules():
        inner = [m for m in child.modules() if isinstance(m, nn.ModuleList)]
        if inner == [child]:
            yield from child
