"""How many anchors are assigned to an object, on this worker or on all of them."""

from __future__ import annotations

import torch.distributed as dist
from detectron2.utils import comm
from torch import Tensor


def count_positives(num_positives: Tensor, average_over_workers: bool) -> tuple[Tensor, int]:
    """P as float, at least 1, and the number W of workers that it was counted on.

    W is 1 unless ``average_over_workers``. Where every worker divides by P / W,
    DistributedDataParallel's average of their gradients, ``sum_w grad(S_w) / (P / W) / W``, is the
    gradient ``grad(S) / P`` of one worker with the whole batch.
    """
    count = num_positives.float()
    workers = comm.get_world_size() if average_over_workers else 1
    if workers > 1:
        count = count.clone()
        dist.all_reduce(count)
    return count.clamp(min=1), workers
