"""What a network knows about its usual pretrained weights and its layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from retina_plugin.modeling.backbones.pixel_format import PixelFormat


class PretrainedNetwork(nn.Module):
    """Base class of a network below the neck that tells more than its outputs.

    Other networks, such as Detectron2's or timm's, need not derive from it: nothing is asked of
    them.

    Attributes:
        pixel_format: what pixels its usual weights were trained on; None if that is not known.
    """

    pixel_format: PixelFormat | None = None

    def layer_names(self) -> list[str] | None:
        """Names of its modules in the order of the forward pass, for ``SOLVER.LAYER_DECAY``.

        By default None: they are found from the order in which it has its children.
        """
        return None

    def map_pretrained(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """Foreign weights by this network's names, where its checkpoints have others.

        The checkpointer calls it if no known naming scheme explains the file. By default None:
        there is no mapping.

        Raises:
            ValueError: the weights are not this network's.
        """
        return None
