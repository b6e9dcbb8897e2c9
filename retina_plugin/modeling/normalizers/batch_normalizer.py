"""The paper's normalizer: the positives of this batch."""

from __future__ import annotations

from torch import Tensor, nn

from retina_plugin.modeling.normalizers.positive_count import count_positives
from retina_plugin.registry import NORMALIZERS


@NORMALIZERS.register(defaults={"AVERAGE_OVER_WORKERS": False})
class BatchNormalizer(nn.Module):
    """``max(P, 1)``: the number of anchors assigned to an object.

    Source: Lin et al. 2017, section 4 ("Focal Loss").

    Args:
        average_over_workers: whether to return the mean of all workers' P, so that every object
            has the same weight on any worker.
    """

    def __init__(self, *, average_over_workers: bool = False) -> None:
        super().__init__()
        self.average_over_workers = average_over_workers

    def forward(self, num_positives: Tensor) -> Tensor:
        """See :class:`retina_plugin.modeling.contracts.Normalizer`."""
        count, workers = count_positives(num_positives, self.average_over_workers)
        return count / workers
