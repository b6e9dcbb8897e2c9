"""Samples of the contenders, taken in turn, and the rows of a table that they make."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeVar

import torch

T = TypeVar("T")
STOCK, PLUGIN = "stock", "plugin"
GIB = 2**30


@dataclass(frozen=True)
class Row:
    """One measure of every contender.

    Attributes:
        name: what is measured.
        unit: of the samples.
        samples: contender -> one number a repeat, or a single one where it cannot vary.
        compared: whether quotients with stock mean anything.
    """

    name: str
    unit: str
    samples: dict[str, list[float]]
    compared: bool = True

    def median(self, contender: str) -> float:
        """The middle sample."""
        return median(self.samples[contender])

    def ratio(self, contender: str) -> tuple[float, float, float] | None:
        """Median, least and largest of the quotients with the stock sample of the same repeat."""
        base = self.samples.get(STOCK)
        if not self.compared or contender not in self.samples or contender == STOCK:
            return None
        if not base or not all(base):
            return None
        quotients = [a / b for a, b in zip(self.samples[contender], base, strict=True)]
        return median(quotients), min(quotients), max(quotients)

    def as_dict(self) -> dict[str, Any]:
        """For json."""
        ratios = {name: self.ratio(name) for name in self.samples}
        return {
            "unit": self.unit,
            "median": {name: self.median(name) for name in self.samples},
            "samples": self.samples,
            "ratio_to_stock": {
                name: dict(zip(("median", "min", "max"), ratio, strict=True))
                for name, ratio in ratios.items()
                if ratio is not None
            },
        }


@dataclass
class Part:
    """One table: its rows and what must be said of them."""

    title: str
    rows: list[Row]
    notes: list[str] = field(default_factory=list)


def interleave(runs: Mapping[str, Callable[[], T]], repeats: int) -> dict[str, list[T]]:
    """Each contender's results, run in turn and in alternating order, garbage collected before."""
    results: dict[str, list[T]] = {name: [] for name in runs}
    for repeat in range(repeats):
        for name in list(runs)[:: -1 if repeat % 2 else 1]:
            gc.collect()
            results[name].append(runs[name]())
    return results


def seconds(run: Callable[[], Any], device: torch.device) -> float:
    """Of one call, to the end of what it started on the device."""
    synchronize(device)
    begin = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - begin


def synchronize(device: torch.device) -> None:
    """Wait for the device, where it works on its own."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
