"""A constant normalizer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from retina_plugin.modeling.stock_names import StockNames
from retina_plugin.registry import NORMALIZERS


@NORMALIZERS.register(defaults={"VALUE": 100.0})
class FixedNormalizer(StockNames, nn.Module):
    """A constant: the gradient of an object does not depend on what else is in the batch.

    Args:
        value: number that the losses are divided by, positive.

    Raises:
        ValueError: ``value`` is not positive.
    """

    stock_names = {"loss_normalizer": "value"}

    def __init__(self, *, value: float = 100.0) -> None:
        super().__init__()
        if value <= 0:
            raise ValueError(
                "MODEL.RETINANET.NORMALIZER.FixedNormalizer.VALUE must be positive (the losses "
                f"are divided by it), got {value}"
            )
        self.value = float(value)

    def forward(self, num_positives: Tensor) -> Tensor:
        """See :class:`retina_plugin.modeling.contracts.Normalizer`."""
        return torch.full((), self.value, device=num_positives.device)
