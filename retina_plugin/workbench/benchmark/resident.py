"""What a process that trains takes of the machine's memory, the allocator's gaps included."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from retina_plugin.config.extensions import import_extension
from retina_plugin.workbench.benchmark.contenders import Contender
from retina_plugin.workbench.benchmark.rows import GIB, Part, Row
from retina_plugin.workbench.benchmark.step import run_step

STEPS = 2  # the optimizer's state is there from the second on
STATUS = Path("/proc/self/status")


def measure_resident(contenders: Sequence[Contender], _: int) -> Part:
    """The largest resident set of a fresh process of each contender, which trains two steps.

    In one process for all the second would live in what the first one left. Once each: it takes
    long, and changes by a few per cent.
    """
    title = f"process of {STEPS} steps"
    if contenders[0].device.type != "cpu" or not STATUS.exists():
        return Part(title, [], ["the resident set is measured on the CPU, under Linux"])
    found = {c.name: _peaks(c) for c in contenders}
    rows = [
        Row("peak resident set", "GiB", {name: [peak] for name, (peak, _) in found.items()}),
        Row("what the steps add to it", "GiB", {n: [a - b] for n, (a, b) in found.items()}),
    ]
    return Part(title, rows)


def _peaks(contender: Contender) -> list[float]:
    """GiB at the end, and before the first step."""
    given = {
        "name": contender.name,
        "cfg": contender.cfg,
        "batch": contender.batch,
        "weights": contender.model.state_dict(),
        "threads": torch.get_num_threads(),
        "extensions": contender.extensions,
    }
    with TemporaryDirectory() as folder:
        file = Path(folder) / "contender.pt"
        torch.save(given, file)
        command = [sys.executable, "-W", "ignore", "-m", __name__, str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the process of {contender.name} failed:\n{done.stderr[-2000:]}")
    return [float(x) for x in done.stdout.split()[-2:]]


def _train(file: str) -> None:
    """In the fresh process: two steps, then both peaks to the standard output."""
    torch.set_flush_denormal(True)
    given = torch.load(file, weights_only=False)  # written above
    torch.set_num_threads(given["threads"])
    for extension in given["extensions"]:
        import_extension(extension)
    contender = Contender.build(given["name"], given["cfg"], given["batch"])
    contender.model.load_state_dict(given.pop("weights"))
    before = _peak()
    for _ in range(STEPS):
        run_step(contender.trainer)
    print(_peak(), before)


def _peak() -> float:
    """GiB; unlike ``getrusage``'s, which a process inherits from the one that started it."""
    (line,) = (x for x in STATUS.read_text().splitlines() if x.startswith("VmHWM:"))
    return 1024 * int(line.split()[1]) / GIB


if __name__ == "__main__":
    _train(sys.argv[1])
