"""Peak memory of a call, exact and the same every time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile

METHOD = {
    "cpu": "bytes of live tensors, from torch.profiler's allocations",
    "cuda": "bytes of live tensors, torch.cuda.max_memory_allocated",
}


def peak_memory(run: Callable[[], Any], device: torch.device) -> int:
    """Bytes of tensors that ``run`` has alive at once, above what was alive before it.

    On the CPU that is the running sum of every allocation and release that ``torch.profiler`` saw.
    The resident set would add what the C library keeps of freed blocks, which depends on what ran
    before.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler writes to the screen
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    live: dict[int, int] = {}
    level = peak = 0
    for block, size in _allocations(seen.profiler.kineto_results.experimental_event_tree()):
        if size > 0:
            live[block] = size
            level += size
        else:  # of a block from before, the profiler may know a wrong size
            level -= live.pop(block, 0)
        peak = max(peak, level)
    return peak


def _allocations(events: list[Any]) -> list[tuple[int, int]]:
    """Address and size of each allocation, and of each release with a size below 0, in time."""
    found, rest = [], list(events)
    while rest:
        event = rest.pop()
        rest += event.children
        if event.tag == _EventType.Allocation:
            found.append(
                (event.start_time_ns, event.extra_fields.ptr, event.extra_fields.alloc_size)
            )
    return [(block, size) for _, block, size in sorted(found, key=lambda x: x[0])]


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Of all storages, shared ones once."""
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage() for x in tensors}
    return sum(storage.nbytes() for storage in storages.values())
