"""Seconds spent in the named parts of a model, whatever calls them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import nn


class Stopwatch:
    """Adds up the seconds between ``begin`` and ``end`` of each part.

    On CUDA it waits for the device at both ends, so that a part's kernels count as its own.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds: Counter[str] = Counter()
        self._device = device
        self._begun: dict[str, float] = {}

    def begin(self, part: str) -> None:
        """From here on it is ``part``'s time; parts may overlap."""
        self._wait()
        self._begun[part] = time.perf_counter()

    def end(self, part: str) -> None:
        """Add the time since ``begin``."""
        self._wait()
        self.seconds[part] += time.perf_counter() - self._begun.pop(part)

    @contextmanager
    def running(self, part: str) -> Iterator[None]:
        """``begin`` and ``end``."""
        self.begin(part)
        yield
        self.end(part)

    @contextmanager
    def watching(self, owner: Any, attribute: str, part: str) -> Iterator[None]:
        """Within, each call of ``owner.attribute`` is ``part``'s time.

        Args:
            owner: a module of either kind (torch's, Python's) or another object.
            attribute: name of a method, function or callable there; afterwards as before.
            part: what to add its time to.
        """
        target = getattr(owner, attribute)
        if isinstance(target, nn.Module):
            hooks = [
                target.register_forward_pre_hook(lambda *_: self.begin(part)),
                target.register_forward_hook(lambda *_: self.end(part)),
            ]
            try:
                yield
            finally:
                for hook in hooks:
                    hook.remove()
            return
        own = vars(owner)  # a method is the class's: what is set here stands before it
        was_own = attribute in own
        own[attribute] = self._timed(target, part)
        try:
            yield
        finally:
            if was_own:
                own[attribute] = target
            else:
                del own[attribute]

    def _timed(self, function: Callable, part: str) -> Callable:
        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.running(part):
                return function(*args, **kwargs)

        return timed

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
