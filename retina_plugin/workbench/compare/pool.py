"""Runs in processes of their own, a few at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import torch
from tqdm import tqdm

from retina_plugin.workbench.compare.runs import Run
from retina_plugin.workbench.compare.worker import write_task

CONSOLE = "console.txt"
POLL = 0.2  # seconds
LAST_LINES = 15


def carry_out(
    runs: Sequence[Run],
    *,
    jobs: int,
    extensions: tuple[str, ...] = (),
    say: Callable[[str], None] = print,
) -> list[Run]:
    """Carry out the runs that have no result yet, ``jobs`` at a time; returns those that failed.

    A run that fails does not stop the others; its last lines are said. On an interruption the
    running ones are stopped: called again, they go on from their last checkpoints.
    """
    waiting = [run for run in runs if run.result() is None]
    total, done = len(waiting), len(runs) - len(waiting)
    say(f"{total} of {len(runs)} runs to do" + (f", {done} are finished already" if done else ""))
    bar = tqdm(total=len(runs), initial=done, unit="run", disable=None)
    running: dict[subprocess.Popen[bytes], tuple[Run, float]] = {}
    failed = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                run = waiting.pop(0)
                running[_start(run, jobs, extensions)] = (run, time.monotonic())
            for process in [process for process in running if process.poll() is not None]:
                run, begin = running.pop(process)
                minutes = (time.monotonic() - begin) / 60
                if process.returncode == 0 and run.result() is not None:
                    say(f"{run.label}, seed {run.seed}: done in {minutes:.1f} minutes")
                else:
                    failed.append(run)
                    say(_failure(run, process.returncode))
                bar.update()
            bar.refresh()  # the time that has passed
            time.sleep(POLL)
    finally:
        bar.close()
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
    return failed


def _start(run: Run, jobs: int, extensions: tuple[str, ...]) -> subprocess.Popen[bytes]:
    """Each worker gets its share of the processor: more threads than cores cost all of them."""
    run.folder.mkdir(parents=True, exist_ok=True)
    write_task(run, extensions)
    threads = max(1, torch.get_num_threads() // jobs)
    # a file: no pipe that can run full; of this attempt alone, log.txt has the earlier ones
    with (run.folder / CONSOLE).open("wb") as console:
        return subprocess.Popen(
            [sys.executable, "-m", "retina_plugin.workbench.compare.worker", str(run.folder)],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )


def _failure(run: Run, code: int) -> str:
    console = run.folder / CONSOLE
    lines = console.read_text(encoding="utf-8", errors="replace").splitlines()
    mistake = [line for line in lines if line.startswith("error: ")]
    told = mistake[-1:] or lines[-LAST_LINES:]
    head = f"{run.label}, seed {run.seed}: failed with exit code {code}, all it said: {console}"
    return "\n".join([head, *(f"    {line}" for line in told)])
