"""A training step: its time and where it goes, its floor, its memory, its synchronisations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from detectron2.engine import SimpleTrainer
from detectron2.utils.events import EventStorage
from torch import nn

from retina_plugin.workbench.benchmark.contenders import Contender
from retina_plugin.workbench.benchmark.memory import METHOD, peak_memory, tensor_bytes
from retina_plugin.workbench.benchmark.rows import GIB, Part, Row, interleave
from retina_plugin.workbench.benchmark.stopwatch import Stopwatch
from retina_plugin.workbench.benchmark.synchronisations import SynchronisationCounter

TO_GRADIENTS = "forward and backward"
TIMES = ("step", "data", "network", "assignment", "loss", "backward", "optimizer", TO_GRADIENTS)
FLOOR = "floor of "
WAITS, LOG_WAITS = "synchronisations", "synchronisations of the log"
UPLOADS = "blocking copies to the device"
NOTES = (
    f"overhead = ({TO_GRADIENTS}) / floor - 1; floor = the same of the network alone, the gradient "
    "of the head's maps being fixed noise; the optimizer is in neither",
    "data = copying, normalizing and padding images; loss = what is left of the forward pass",
    "the model = weights, buffers and the optimizer's state; gradients are above it",
)
# where losses are read for the log
LOGGING = ("detectron2.engine.train_loop.write_metrics", "retina_plugin.engine.step._on_host")


def measure_step(contenders: Sequence[Contender], repeats: int) -> Part:
    """Every measure of a step; the first steps, of synchronisations and memory, warm up."""
    synchronisations = {c.name: count_synchronisations(c) for c in contenders}
    memory = {c.name: step_memory(c) for c in contenders}
    runs: dict[str, Callable[[], dict[str, float]]] = {}
    for contender in contenders:
        run_step(contender.floor)
        runs[contender.name] = lambda c=contender: step_times(c)
        runs[FLOOR + contender.name] = lambda c=contender: floor_times(c)
    rows = [
        *_time_rows(interleave(runs, repeats), list(memory)),
        Row("peak memory above the model", "GiB", {n: [x[0] / GIB] for n, x in memory.items()}),
        Row("peak memory", "GiB", {n: [sum(x) / GIB] for n, x in memory.items()}),
        *(
            Row(kind, "", {n: [x[kind].total()] for n, x in synchronisations.items()})
            for kind in (WAITS, LOG_WAITS, UPLOADS)
        ),
    ]
    notes = [*NOTES, f"memory: {METHOD[contenders[0].device.type]}"]
    for name, counts in synchronisations.items():
        places = [f"{n} x {what} at {where}" for (what, where), n in counts[WAITS].items()]
        notes.append(f"{WAITS} of {name}: {', '.join(places) or 'none'}")
    return Part("training step", rows, notes)


def _time_rows(samples: dict[str, list[dict[str, float]]], names: list[str]) -> list[Row]:
    def column(name: str, part: str) -> list[float]:
        return [times[part] for times in samples[name]]

    rows = [Row(part, "s", {n: column(n, part) for n in names}) for part in TIMES]
    floors = {n: column(FLOOR + n, TO_GRADIENTS) for n in names}
    overheads = {
        n: [100 * (a / b - 1) for a, b in zip(column(n, TO_GRADIENTS), floors[n], strict=True)]
        for n in names
    }
    return [*rows, Row("floor", "s", floors), Row("overhead", "%", overheads, compared=False)]


def run_step(trainer: SimpleTrainer) -> None:
    """One step, as the trainer runs it."""
    trainer.model.train()
    with EventStorage(0) as trainer.storage:
        trainer.run_step()


def step_times(contender: Contender) -> dict[str, float]:
    """Seconds of one step and its parts; on CUDA the parts come of a second step.

    There they need waits that would slow down the step as a whole.
    """
    if contender.device.type == "cpu":
        return _times(contender, parts=True)
    return _times(contender, parts=True) | _times(contender, parts=False)


def _times(contender: Contender, *, parts: bool) -> dict[str, float]:
    model, watch = contender.model, Stopwatch(contender.device)
    with ExitStack() as stack:
        if parts:
            assigner = "assigner" if hasattr(model, "assigner") else "label_anchors"
            for owner, attribute, part in (
                (model, "preprocess_image", "data"),
                (model, "backbone", "network"),
                (model, "head", "network"),
                (model, assigner, "assignment"),
                (contender.optimizer, "step", "optimizer"),
            ):
                stack.enter_context(watch.watching(owner, attribute, part))
        times = _run(contender.trainer, model, watch, stack)
    if parts:
        seconds, inner = watch.seconds, ("data", "network", "assignment")
        times |= {part: seconds[part] for part in (*inner, "backward", "optimizer")}
        times["loss"] = seconds["forward"] - sum(seconds[part] for part in inner)
    return times


def floor_times(contender: Contender) -> dict[str, float]:
    """Seconds of one step of the network alone."""
    watch = Stopwatch(contender.device)
    with ExitStack() as stack:
        return _run(contender.floor, contender.floor.model, watch, stack)


def _run(
    trainer: SimpleTrainer, model: nn.Module, watch: Stopwatch, stack: ExitStack
) -> dict[str, float]:
    """Times of one step: the whole, and from the forward pass to the end of the backward pass."""

    def forward_ends(*_: Any) -> None:
        watch.end("forward")
        watch.begin("backward")

    for hook in (
        model.register_forward_pre_hook(lambda *_: watch.begin("forward"), prepend=True),
        model.register_forward_hook(forward_ends),
    ):
        stack.callback(hook.remove)
    vars(trainer)["after_backward"] = lambda: watch.end("backward")
    stack.callback(vars(trainer).pop, "after_backward")
    with watch.running("step"):
        run_step(trainer)
    seconds = watch.seconds
    return {"step": seconds["step"], TO_GRADIENTS: seconds["forward"] + seconds["backward"]}


def step_memory(contender: Contender) -> tuple[int, int]:
    """Bytes of a step's peak above the model, and of the model: weights, buffers, optimizer.

    Of two steps: in the second the first one's gradients are still there, for as long as they are.
    """

    def two_steps() -> None:
        run_step(contender.trainer)
        run_step(contender.trainer)

    if not contender.optimizer.state:  # it is there from the first step on
        run_step(contender.trainer)
    contender.optimizer.zero_grad(set_to_none=True)
    return peak_memory(two_steps, contender.device), tensor_bytes(contender.held())


def count_synchronisations(contender: Contender) -> dict[str, Counter[tuple[str, str]]]:
    """Waits of a step, those of Detectron2's log apart, and blocking copies to the device."""
    with SynchronisationCounter(contender.device, contender.batch) as counter:
        run_step(contender.trainer)
    of_log = Counter({k: n for k, n in counter.waits.items() if k[1].startswith(LOGGING)})
    return {
        WAITS: counter.waits - of_log,
        LOG_WAITS: of_log,
        UPLOADS: counter.uploads,
    }
