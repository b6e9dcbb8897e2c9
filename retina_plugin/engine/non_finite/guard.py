"""Guard against non-finite losses: stop the training or skip the step."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from retina_plugin.config.keys import check_choice, defaults_below
from retina_plugin.engine.environment import environment
from retina_plugin.engine.non_finite.causes import likely_cause
from retina_plugin.engine.non_finite.finding import GRADIENT, LOSS, LOSS_SCALE, Finding
from retina_plugin.engine.non_finite.replay_file import Batch, SavedStep, write_step
from retina_plugin.engine.non_finite.search import Passes, search
from retina_plugin.engine.non_finite.state import StateBefore
from retina_plugin.registry import unknown_name

KEY = "SOLVER.NON_FINITE"
FOLDER = "non_finite"  # in OUTPUT_DIR
SKIPPED = "non_finite_steps"  # in metrics.json
HISTORY = 5  # steps
# read together with the losses
_GRADIENT, _SCALE, _ALL = "gradient norm", "loss scale", "finite on every worker"

logger = logging.getLogger(__name__)


class NonFiniteError(FloatingPointError):
    """Raised if a loss or gradient is infinite or NaN; the weights were not updated with it.

    Args:
        finding: the finding of the worker concerned, which the message shows in full.
        ending: text appended to the message.
    """

    def __init__(self, finding: Finding, ending: str = "") -> None:
        super().__init__(f"{finding}{ending}")
        self.finding = finding


@dataclass(frozen=True)
class Origin:
    """Information that a replay needs besides the step.

    Attributes:
        folder: folder of the replay files; None to write none.
        config: config as yaml; "" for a LazyConfig.
        class_names: class names of the training set.
    """

    folder: Path | None = None
    config: str = ""
    class_names: Sequence[str] = ()


class NonFiniteGuard:
    """Check the losses of each step; diagnose a failed step, then stop or skip it.

    A skipped step has no effect: weights, momenta, weight average, loss scale, normalizer and
    norm statistics are restored; only the iteration, and with it the learning rate
    schedule, advances. Skips are logged and counted in ``metrics.json`` as ``non_finite_steps``.

    Cost of a regular step: copies of the normalizer's and batch norms' buffers, and a check of
    numbers already on the host, without another device synchronization. Several workers sum
    one number per step to decide alike; ``CHECK_GRADIENTS`` adds the gradient norm, which
    is read with the losses.

    Args:
        model: the model without a DDP wrapper.
        optimizer: optimizer from which the learning rate is read.
        action: ``stop`` or ``skip``.
        max_skips: number of skipped steps allowed before the training stops, counted from its
            start or resumption.
        write: maximum number of replay files, written for the first failed steps; 0 for none.
        check_gradients: whether to check the gradient, too. With float16 it may be non-finite: the
            loss scale is always checked instead.
        origin: see :class:`Origin`.

    Attributes:
        skipped: number of skipped steps so far.

    Raises:
        UnknownNameError: if the action is unknown.
        ValueError: if a number is out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        action: str = "stop",
        max_skips: int = 10,
        write: int = 3,
        check_gradients: bool = False,
        origin: Origin | None = None,
    ) -> None:
        check_choice(f"{KEY}.ACTION", action)
        for name, value in (("MAX_SKIPS", max_skips), ("WRITE", write)):
            if type(value) is not int or value < 0:
                raise ValueError(f"{KEY}.{name} must be a whole number, 0 or more, got {value!r}")
        self.skipped = 0
        self._model, self._optimizer = model, optimizer
        self._skips, self._max_skips = action == "skip", max_skips
        self._to_write, self._checks_gradients = write, check_gradients
        self._origin = origin or Origin()
        self._before = StateBefore(model)
        self._steps = 0
        self._told_of_scale = False

    def remember(self) -> None:
        """Save the state before the forward pass."""
        self._before.remember()

    def signs(
        self, losses: Mapping[str, Tensor], scaler: torch.amp.GradScaler | None
    ) -> dict[str, Tensor]:
        """Return device scalars to be transferred together with the losses."""
        device = next(iter(losses.values())).device
        signs = {}
        if scaler is not None:
            signs[_SCALE] = scaler.scale(torch.ones((), device=device))
        elif self._checks_gradients:
            gradients = [x.grad for x in self._model.parameters() if x.grad is not None]
            signs[_GRADIENT] = torch.stack(torch._foreach_norm(gradients)).norm()
        if comm.get_world_size() > 1:
            # losses only: gradient and loss scale are the same on all workers
            finite = torch.stack([x.detach().float() for x in losses.values()]).isfinite().all()
            finite = finite.float()
            dist.all_reduce(finite, dist.ReduceOp.MIN)
            signs[_ALL] = finite
        return signs

    def accepts(
        self,
        read: dict[str, Tensor],
        *,
        step: int,
        batches: Sequence[Batch],
        autocast: Callable[[], AbstractContextManager],
        precision: str,
    ) -> bool:
        """Return whether the weights may be updated. Removes the signs from ``read``.

        Args:
            read: losses and :meth:`signs` on the host.
            step: the iteration.
            batches: the step's micro-batches.
            autocast: function that returns the autocast context of a forward pass.
            precision: name of the precision.

        Raises:
            NonFiniteError: if the step failed and the training stops.
        """
        signs = {name: float(read.pop(name)) for name in (_ALL, _GRADIENT, _SCALE) if name in read}
        losses = {name: float(value) for name, value in read.items()}
        self._steps += 1
        what = self._refusal(losses, signs)
        if not what:
            return True
        found = Finding(
            step=step,
            what=what,
            losses=losses,
            precision=precision,
            device=str(next(self._model.parameters()).device),
            worker=comm.get_rank(),
        )
        passes = Passes(self._model, self._before, autocast, self._origin.class_names)
        return self._decide(self._examine(found, batches, passes, signs.get(_SCALE, 1.0)))

    def _refusal(self, losses: Mapping[str, float], signs: Mapping[str, float]) -> str:
        """Return what is non-finite, the same on every worker; "" if nothing is."""
        if not signs.get(_ALL, True) or not all(map(math.isfinite, losses.values())):
            return LOSS
        if not math.isfinite(signs.get(_GRADIENT, 0.0)):
            return GRADIENT
        if signs.get(_SCALE, 1.0) < 1 and not self._told_of_scale:
            self._told_of_scale = True
            return LOSS_SCALE
        return ""

    def _examine(
        self, found: Finding, batches: Sequence[Batch], passes: Passes, scale: float
    ) -> Finding:
        """Search for the cause, write the replay file, and agree on the worker that failed."""
        found.history = _history()
        try:
            search(found, batches, passes)
        except Exception as error:  # must not hide the training's error
            logger.debug("the search failed", exc_info=True)
            found.search_failed = True
            found.notes.append(f"the search itself failed: {type(error).__name__}: {error}")
        self._before.restore()
        lr = max((group["lr"] for group in self._optimizer.param_groups), default=None)
        cause = likely_cause(found, lr=lr, first_step=self._steps == 1)
        found.why, found.advice = cause.why, list(cause.advice)
        if found.bad_losses or found.what != LOSS:
            self._write(found, batches, scale)
        everyone = comm.all_gather(found)
        return max(everyone, key=lambda x: (len(x.bad_losses), len(x.images), -x.worker))

    def _write(self, found: Finding, batches: Sequence[Batch], scale: float) -> None:
        if self._origin.folder is None or not self._to_write:
            return
        self._to_write -= 1
        of_worker = f"_worker_{found.worker}" if comm.get_world_size() > 1 else ""
        path = self._origin.folder / f"step_{found.step}{of_worker}.pth"
        saved = SavedStep(
            step=found.step,
            finding=found.as_plain(),
            batches=list(batches),
            weights=self._model.state_dict(),
            random=self._before.random,
            config=self._origin.config,
            precision=found.precision,
            loss_scale=scale,
            checks_gradients=self._checks_gradients,
            class_names=list(self._origin.class_names),
            environment=environment(),
            left_out=[],
        )
        try:
            write_step(saved, path)
            found.replay = str(path)
        except OSError as error:  # e.g. a full disk
            found.notes.append(f"the step could not be written for replay: {error}")

    def _decide(self, found: Finding) -> bool:
        if found.what == LOSS_SCALE:  # GradScaler skips these steps itself
            logger.warning(str(found))
            return True
        if not self._skips:
            raise NonFiniteError(found)
        if found.search_failed:
            raise NonFiniteError(
                found, "\nThe search ended half-way, so the model may not be as it was: no skip."
            )
        self.skipped += 1
        if self.skipped > self._max_skips:
            raise NonFiniteError(
                found,
                f"\nThat is skipped step {self.skipped}, and {KEY}.MAX_SKIPS is {self._max_skips}.",
            )
        self._optimizer.zero_grad()
        get_event_storage().put_scalar(SKIPPED, self.skipped, smoothing_hint=False)
        logger.warning(f"Skipped step {self.skipped} (at most {self._max_skips}). {found}")
        return False


def build_guard(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: Mapping[str, Any],
    origin: Origin | None = None,
) -> NonFiniteGuard:
    """Build the guard from ``SOLVER.NON_FINITE``.

    Args:
        model: the model without a DDP wrapper.
        optimizer: optimizer of the model.
        settings: the keys of ``SOLVER.NON_FINITE``.
        origin: information for the replay file.

    Raises:
        UnknownNameError: if a key or the action is unknown; lists the valid ones.
        ValueError: if a value is out of range.
    """
    defaults = defaults_below(KEY)
    for key in settings:
        if key not in defaults:
            raise unknown_name(KEY, key, defaults)
    values = {key.lower(): value for key, value in {**defaults, **settings}.items()}
    return NonFiniteGuard(model, optimizer, origin=origin, **values)


def _history() -> list[dict[str, float]]:
    """Return loss and learning rate of the last steps, and the gradient norms logged last."""
    names = {"total_loss": "loss", "lr": "lr", "gradient_norm/max": "gradient_norm"}
    logged = get_event_storage().histories()
    steps: dict[int, dict[str, float]] = {}
    for name, short in names.items():
        for value, step in logged[name].values()[-HISTORY:] if name in logged else ():
            steps.setdefault(int(step), {})[short] = float(value)
    return [{"step": step, **steps[step]} for step in sorted(steps)]
