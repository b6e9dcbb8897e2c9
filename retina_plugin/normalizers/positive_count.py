"""How many anchors are assigned to an object, on this worker or on average over all."""

from __future__ import annotations

import torch.distributed as dist
from detectron2.utils import comm
from torch import Tensor


def count_positives(num_positives: Tensor, average_over_workers: bool) -> Tensor:
    """P as float, at least 1; on request the workers' mean.

    With the mean P/W over W workers, DistributedDataParallel's average of the workers' gradients,
    ``sum_w grad(S_w) / (P/W) / W``, is the gradient ``grad(S) / P`` of the whole batch.
    """
    count = num_positives.float()
    if average_over_workers and comm.get_world_size() > 1:
        count = count.clone()
        dist.all_reduce(count)
        count = count / comm.get_world_size()
    return count.clamp(min=1)
