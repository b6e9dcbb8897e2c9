"""Do the next items' slow part in threads while this one is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

Item = TypeVar("Item")

THREADS = 4  # decoders and resizes do not hold the interpreter


def read_ahead(items: Iterable[Any], read: Callable[[Any], Item], *, ahead: int) -> Iterator[Item]:
    """``read(item)`` of each, in order; what it raises ends the iteration.

    Args:
        items: taken as they are needed.
        read: what is done in threads.
        ahead: how many results may wait, which bounds the memory.
    """
    items = iter(items)
    waiting: deque[Future] = deque()
    pool = ThreadPoolExecutor(min(THREADS, ahead))
    try:
        while True:
            for item in islice(items, ahead - len(waiting)):
                waiting.append(pool.submit(read, item))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def in_chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """``size`` items at a time, at the end fewer."""
    items = iter(items)
    while chunk := list(islice(items, size)):
        yield chunk
