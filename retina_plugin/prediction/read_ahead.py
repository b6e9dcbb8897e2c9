"""Do the next items' slow part in threads while this one is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

Item = TypeVar("Item")
Error = TypeVar("Error", bound=Exception)

THREADS = 4  # decoders and resizes do not hold the interpreter


def read_ahead(
    items: Iterable[Any],
    read: Callable[[Any], Item],
    *,
    errors: type[Error],
    ahead: int,
) -> Iterator[Item | Error]:
    """``read(item)`` of each, in order, or the error of the kind ``errors`` that it raised.

    Args:
        items: taken as they are needed.
        read: what is done in threads.
        errors: others end the iteration.
        ahead: how many results may wait, which bounds the memory.
    """
    items = iter(items)
    waiting: deque[Future] = deque()
    pool = ThreadPoolExecutor(min(THREADS, max(1, ahead)))
    try:
        while True:
            for item in islice(items, max(1, ahead) - len(waiting)):
                waiting.append(pool.submit(read, item))
            if not waiting:
                return
            future = waiting.popleft()
            try:
                result: Item | Error = future.result()
            except errors as error:
                result = error
            yield result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def in_chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """``size`` items at a time, at the end fewer."""
    items = iter(items)
    while chunk := list(islice(items, size)):
        yield chunk
