"""How a detector computes, applied to it from outside: the detector knows nothing of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from torch import nn

from retina_plugin.modeling.layers.checkpointing import checkpoint_backbone
from retina_plugin.modeling.layers.folded_conv import fold_frozen_norms
from retina_plugin.modeling.layers.winograd import use_winograd_behind


@dataclass(frozen=True, kw_only=True)
class Techniques:
    """Ways to compute the same values with other modules.

    Attributes:
        fold_frozen_norms: compute each convolution and the frozen norm after it as one.
        winograd: compute the 3x3 convolutions of neck and head with fewer multiplications.
        gradient_checkpointing: compute the backbone's activations again in the backward pass.
        channels_last: keep parameters, and so activations, in the channels-last memory format.
    """

    fold_frozen_norms: bool = False
    winograd: bool = False
    gradient_checkpointing: bool = False
    channels_last: bool = False

    @classmethod
    def from_config(cls, cfg: CfgNode) -> Techniques:
        """The techniques that a config asks for."""
        return cls(
            fold_frozen_norms=cfg.MODEL.get("FOLD_FROZEN_NORMS", False),
            winograd=cfg.MODEL.get("WINOGRAD", False),
            gradient_checkpointing=cfg.MODEL.BACKBONE.get("GRADIENT_CHECKPOINTING", False),
            channels_last=cfg.MODEL.get("CHANNELS_LAST", False),
        )

    def apply(self, model: nn.Module) -> nn.Module:
        """Exchange modules of a model in place, in the order of the attributes.

        Folding decides which convolutions there are. Winograd's filtering takes those that have no
        folded norm. Checkpointing wraps blocks, whatever they consist of by then. The memory
        format comes last: it is a property of the parameters, which no later step may replace.

        Parameters, their names and the keys of ``state_dict()`` stay. A technique that has been
        applied before is not applied again.

        Args:
            model: has ``backbone`` and, where it is a dense detector, ``head``.

        Returns:
            ``model``, or what takes its place.

        Raises:
            ValueError: see :func:`checkpoint_backbone`.
        """
        if self.fold_frozen_norms:
            model, _ = fold_frozen_norms(model)
        if self.winograd:
            use_winograd_behind(model.backbone, getattr(model, "head", nn.Identity()))
        if self.gradient_checkpointing:
            checkpoint_backbone(model.backbone)
        if self.channels_last:
            model = model.to(memory_format=torch.channels_last)
        return model
