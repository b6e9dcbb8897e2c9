"""Detectron2's normalizer: a moving average of the positives, kept across a resume."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from retina_plugin.modeling.normalizers.positive_count import count_positives
from retina_plugin.modeling.stock_names import StockNames
from retina_plugin.registry import NORMALIZERS


@NORMALIZERS.register(defaults={"MOMENTUM": 0.9, "INITIAL": 100.0, "AVERAGE_OVER_WORKERS": False})
class EMANormalizer(StockNames, nn.Module):
    """Exponential moving average ``e = m * e + (1 - m) * max(P, 1)``, updated, then returned.

    Source: ``detectron2.modeling.meta_arch.dense_detector.DenseDetector._ema_update``. Unlike
    there the average is a buffer: checkpoints hold it, so that a resumed run continues with it (of
    several workers without ``average_over_workers``, with the first one's).

    Args:
        momentum: momentum m of the moving average, in [0, 1).
        initial: value e of the average before the first batch, positive.
        average_over_workers: whether to average the mean of all workers' P, so that the gradients
            are those of one worker with the whole batch.

    Raises:
        ValueError: momentum or initial out of range.
    """

    average: Tensor
    stock_names = {"loss_normalizer": "value"}

    def __init__(
        self,
        *,
        momentum: float = 0.9,
        initial: float = 100.0,
        average_over_workers: bool = False,
    ) -> None:
        super().__init__()
        key = "MODEL.RETINANET.NORMALIZER.EMANormalizer"
        if not 0 <= momentum < 1:
            raise ValueError(f"{key}.MOMENTUM must be in [0, 1), got {momentum}")
        if initial <= 0:
            raise ValueError(f"{key}.INITIAL must be positive, got {initial}")
        self.momentum = momentum
        self.average_over_workers = average_over_workers
        self.register_buffer("average", torch.tensor(float(initial)))

    @property
    def value(self) -> float:
        """The average as a number; reading it waits for the device."""
        return self.average.item()

    @value.setter
    def value(self, value: float) -> None:
        self.average.fill_(value)

    def forward(self, num_positives: Tensor) -> Tensor:
        """See :class:`retina_plugin.modeling.contracts.Normalizer`."""
        count, workers = count_positives(num_positives, self.average_over_workers)
        self.average.lerp_(count.to(self.average), 1 - self.momentum)
        return self.average / workers  # a new tensor: the next update must not reach this graph

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # A stock checkpoint has no normalizer; it loads as it is and the average starts fresh
        state_dict.setdefault(f"{prefix}average", self.average.detach().clone())
        super()._load_from_state_dict(state_dict, prefix, *args)
