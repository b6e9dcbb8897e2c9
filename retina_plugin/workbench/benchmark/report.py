"""The tables of a benchmark on the screen, and all of it as json."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import detectron2
import torch
import torchvision
from tabulate import tabulate

from retina_plugin.version import __version__
from retina_plugin.workbench.benchmark.rows import STOCK, Part, Row


def environment(device: torch.device) -> dict[str, Any]:
    """Hardware and versions."""
    on_cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_cuda else _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "detectron2": detectron2.__version__,
        "retina_plugin": __version__,
    }


def _processor() -> str:
    """The CPU's name; Linux does not give it to ``platform``."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def as_text(part: Part) -> str:
    """The part's table and notes."""
    names = list(dict.fromkeys(name for row in part.rows for name in row.samples))
    compared = [name for name in names if name != STOCK and STOCK in names]
    lines = [
        [
            f"{row.name} [{row.unit}]" if row.unit else row.name,
            *(f"{row.median(name):.4g}" if name in row.samples else "" for name in names),
            *(_ratio(row, name) for name in compared),
        ]
        for row in part.rows
    ]
    headers = [part.title, *names, *(f"{name} / stock (least to most)" for name in compared)]
    table = tabulate(lines, headers=headers, tablefmt="github", disable_numparse=True)
    return "\n".join([table, "", *(f"* {note}" for note in part.notes)]).rstrip()


def _ratio(row: Row, name: str) -> str:
    ratio = row.ratio(name)
    if ratio is None:
        return ""
    middle, least, most = (f"{x:.3g}" for x in ratio)
    return middle if least == most else f"{middle} ({least} to {most})"


def as_dict(part: Part) -> dict[str, Any]:
    """For json."""
    return {
        "title": part.title,
        "rows": {row.name: row.as_dict() for row in part.rows},
        "notes": part.notes,
    }


def heading(*facts: dict[str, Any]) -> str:
    """A line of names and values for each of them."""
    return "\n".join(", ".join(f"{k} {v}" for k, v in x.items() if v != "") for x in facts)
