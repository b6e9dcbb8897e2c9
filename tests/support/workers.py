"""Run a function on several CPU workers that talk over gloo."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from detectron2.utils import comm
from torch import distributed as dist
from torch import multiprocessing as mp


def on_workers(count: int, folder: Path, function: Callable[..., Any], *arguments: Any) -> list:
    """What ``function(rank, *arguments)`` returned on each worker.

    Args:
        count: number of workers.
        folder: for the results and the workers' rendezvous.
        function: picklable, that is at a module's top level.
        arguments: picklable.
    """
    mp.spawn(_worker, (count, folder, function, arguments), nprocs=count)
    return [torch.load(folder / f"{rank}.pt") for rank in range(count)]


def _worker(
    rank: int, count: int, folder: Path, function: Callable[..., Any], arguments: tuple
) -> None:
    torch.set_num_threads(1)
    rendezvous = (folder / "rendezvous").as_uri()
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=count)
    comm.create_local_process_group(count)
    try:
        torch.save(function(rank, *arguments), folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()
