"""Launch the worker processes: in this process, spawned, or started by torchrun."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import launch
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launch_workers(main: Callable[[Namespace], Any], args: Namespace) -> None:
    """Run ``main(args)`` in every worker process.

    Under torchrun the process is already a worker and ``--num-gpus`` is ignored. Otherwise
    Detectron2's ``launch`` spawns ``--num-gpus`` workers, on the CPU (gloo) without CUDA.

    Raises:
        SystemExit: if the arguments cannot be satisfied, or with the exit code of a failed worker
            that has already reported the error.
    """
    if all(name in os.environ for name in _TORCHRUN):
        _run_under_torchrun(main, args)
        return
    _check_gpus(args.num_gpus, "--num-gpus")
    if args.num_machines > 1 and args.dist_url == "auto":
        raise SystemExit(
            f"error: --num-machines {args.num_machines} needs --dist-url tcp://HOST:PORT, the same "
            "on all machines: a free port of the machine with --machine-rank 0"
        )
    try:
        launch(
            main,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
    except ProcessExitedException as error:
        if error.exit_code < 0:  # killed by a signal, without a message
            raise
        raise SystemExit(error.exit_code) from None


def _run_under_torchrun(main: Callable[[Namespace], Any], args: Namespace) -> None:
    workers = int(os.environ["LOCAL_WORLD_SIZE"])
    _check_gpus(workers, "torchrun --nproc-per-node")
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if has_gpu else "gloo")
    comm.create_local_process_group(workers)
    try:
        main(args)
    finally:
        dist.destroy_process_group()


def _check_gpus(workers: int, argument: str) -> None:
    gpus = torch.cuda.device_count()
    if gpus and workers > gpus:
        raise SystemExit(
            f"error: {argument} {workers}, but this machine has {gpus}. For workers on CPUs hide "
            "the GPUs: CUDA_VISIBLE_DEVICES=''"
        )
