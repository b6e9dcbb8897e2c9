"""Periodic checkpoints of which only the most recent are kept, also after a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detectron2.checkpoint import Checkpointer
from detectron2.engine.hooks import PeriodicCheckpointer

KEY = "SOLVER.KEEP_CHECKPOINTS"


class KeptCheckpoints(PeriodicCheckpointer):
    """``PeriodicCheckpointer`` that deletes all but the last ``keep`` of ``model_<step>.pth``.

    ``model_final.pth`` and ``model_best.pth`` are kept. Detectron2's own class counts only the
    checkpoints that the current process wrote.

    Args:
        checkpointer: checkpointer of the training.
        period: steps between checkpoints.
        keep: number of checkpoints to keep; 0 for all.

    Raises:
        ValueError: if ``keep`` is negative.
    """

    def __init__(self, checkpointer: Checkpointer, period: int, *, keep: int = 0) -> None:
        if keep < 0:
            raise ValueError(f"{KEY} must be 0 (all) or more, got {keep}")
        super().__init__(checkpointer, period, max_to_keep=keep or None)

    def before_train(self) -> None:
        """Find the checkpoints written before a resume; a new training has none."""
        super().before_train()
        if self.max_to_keep is not None and self.trainer.start_iter > 0:
            folder = Path(self.checkpointer.save_dir)
            found = folder.glob(f"{self.file_prefix}_{'[0-9]' * 7}.pth")
            self.recent_checkpoints = sorted(map(str, found))

    def step(self, iteration: int, **kwargs: Any) -> None:
        """Save a checkpoint when due, and delete the oldest ones."""
        super().step(iteration, **kwargs)
        while self.max_to_keep is not None and len(self.recent_checkpoints) > self.max_to_keep:
            Path(self.recent_checkpoints.pop(0)).unlink(missing_ok=True)
