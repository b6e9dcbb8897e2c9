"""Detectron2's periodic checkpoints, of which the last few are kept, after a resume as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detectron2.checkpoint import Checkpointer
from detectron2.engine.hooks import PeriodicCheckpointer

KEY = "SOLVER.KEEP_CHECKPOINTS"


class KeptCheckpoints(PeriodicCheckpointer):
    """``PeriodicCheckpointer`` that deletes all but the last ``keep`` of ``model_<step>.pth``.

    ``model_final.pth`` and ``model_best.pth`` stay. Detectron2's own counts only those that the
    present process wrote.

    Args:
        checkpointer: of the training.
        period: steps between checkpoints.
        keep: how many; 0 for all.

    Raises:
        ValueError: ``keep`` is negative.
    """

    def __init__(self, checkpointer: Checkpointer, period: int, *, keep: int = 0) -> None:
        if keep < 0:
            raise ValueError(f"{KEY} must be 0 (all) or more, got {keep}")
        super().__init__(checkpointer, period, max_to_keep=keep or None)

    def before_train(self) -> None:
        """Count those of before a resume; there are none of this training otherwise."""
        super().before_train()
        if self.max_to_keep is not None and self.trainer.start_iter > 0:
            folder = Path(self.checkpointer.save_dir)
            found = folder.glob(f"{self.file_prefix}_{'[0-9]' * 7}.pth")
            self.recent_checkpoints = sorted(map(str, found))

    def step(self, iteration: int, **kwargs: Any) -> None:
        """Save, and delete what is too old."""
        super().step(iteration, **kwargs)
        while self.max_to_keep is not None and len(self.recent_checkpoints) > self.max_to_keep:
            Path(self.recent_checkpoints.pop(0)).unlink(missing_ok=True)
