"""Start the workers: none, spawned here, or those that torchrun started."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import launch
from detectron2.utils import comm

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launch_workers(main: Callable[[Namespace], Any], args: Namespace) -> Any:
    """Run ``main(args)`` in every worker.

    Under torchrun the process is a worker already and ``--num-gpus`` says nothing. Else
    Detectron2's ``launch`` spawns ``--num-gpus`` workers, on CPUs (gloo) where there is no CUDA.

    Raises:
        ValueError: more workers than GPUs on this machine.
    """
    if all(name in os.environ for name in _TORCHRUN):
        return _run_under_torchrun(main, args)
    gpus = torch.cuda.device_count()
    if gpus and args.num_gpus > gpus:
        raise ValueError(f"--num-gpus {args.num_gpus}, but this machine has {gpus}")
    return launch(
        main,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
    )


def _run_under_torchrun(main: Callable[[Namespace], Any], args: Namespace) -> Any:
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if has_gpu else "gloo")
    comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
    try:
        return main(args)
    finally:
        dist.destroy_process_group()
