"""``OUTPUT_DIR``: the files of a run, and how the files of an earlier run are kept."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterable
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from detectron2.utils import comm

from retina_plugin.engine.environment import environment, git_commit

# files that a training writes, except the log, which is appended to
OF_A_RUN = (
    *("metrics.json", "events.out.tfevents.*", "curves.png", "config.yaml", "environment.json"),
    *("lazy_config.yaml", "lazy_config.yaml.pkl"),
    *("model_[0-9]*.pth", "model_final.pth", "model_best.pth", "last_checkpoint"),
    *("inference*", "history", "loggers.json", "report.html", "non_finite"),
)
HISTORY = "history"
ENVIRONMENT = "environment.json"
CONFIG = "config.yaml"

logger = logging.getLogger(__name__)


def open_run(folder: str | Path, *, resume: bool, eval_only: bool, config: str | None) -> Path:
    """Prepare ``folder`` for a training or an evaluation without losing existing files.

    * A new training moves the files of an earlier one to ``previous_1``, ``previous_2``, ...
    * A resumed training or an evaluation keeps them; ``config.yaml`` (if it differs) and
      ``environment.json`` are rewritten, the old versions are moved to ``history/``.

    ``log.txt`` is always appended to. The first worker moves the files, the others wait.

    Args:
        folder: ``OUTPUT_DIR``.
        resume, eval_only: the command line options.
        config: new content of ``config.yaml``, or None if unknown.

    Returns:
        The folder of the earlier training's files: ``folder`` itself if they were not moved.
    """
    folder = Path(folder)
    moved_to = folder
    if comm.is_main_process():
        folder.mkdir(parents=True, exist_ok=True)
        goes_on = not eval_only and resume and (folder / "last_checkpoint").is_file()
        if eval_only or goes_on:
            _keep(folder / CONFIG, new=config)
        else:
            moved_to = _move_aside(folder)
        if goes_on:
            _keep(folder / ENVIRONMENT)
        if not eval_only:
            text = json.dumps(description(), indent=2, ensure_ascii=False)
            (folder / ENVIRONMENT).write_text(text + "\n", encoding="utf-8")
    return comm.all_gather(moved_to)[0]


def relocated(path: str, folder: str | Path, moved_to: Path) -> str:
    """Return the new path of a file that :func:`open_run` moved from ``folder``, else ``path``."""
    if moved_to == Path(folder) or "://" in path or not path or Path(path).exists():
        return path
    if Path(path).resolve().parent != Path(folder).resolve():
        return path
    now = moved_to / Path(path).name
    if not now.exists():
        return path
    logger.info(f"The weights {path} are now {now}")
    return str(now)


def description() -> dict[str, Any]:
    """Describe the environment of the run, as written to ``environment.json``."""
    here = Path.cwd()
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        "folder": str(here),
        "commit": git_commit(here),
        "changes": _changes(here),
        "workers": comm.get_world_size(),
        "environment": environment(),
        "packages": dict(_packages()),
    }


def _move_aside(folder: Path) -> Path:
    """Move the files of an earlier run; return the target folder."""
    found = [path for pattern in OF_A_RUN for path in folder.glob(pattern)]
    written = [path for path in found if path.name not in (CONFIG, ENVIRONMENT, HISTORY)]
    if not any(path.is_dir() or path.stat().st_size for path in written):
        return folder  # left by a failed start
    number = 1
    while (folder / f"previous_{number}").exists():
        number += 1
    target = folder / f"previous_{number}"
    target.mkdir()
    for path in found:
        path.rename(target / path.name)
    logger.warning(
        f"{folder} held an earlier training: its {len(found)} files are now in {target}. To go on "
        "with it, use --resume; to keep trainings apart, give each its own OUTPUT_DIR"
    )
    return target


def _keep(path: Path, *, new: str | None = None) -> None:
    """Move a file to ``history/`` before it is overwritten, unless its content is the same."""
    if not path.is_file() or path.read_text(encoding="utf-8") == new:
        return
    history = path.parent / HISTORY
    history.mkdir(exist_ok=True)
    number = 1
    while (target := history / f"{path.stem}_{number}{path.suffix}").exists():
        number += 1
    path.rename(target)


def _changes(folder: Path) -> list[str]:
    """Return the files that differ from the commit; empty outside a git checkout."""
    command = ["git", "-C", str(folder), "diff", "--stat", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines()]


def _packages() -> Iterable[tuple[str, str]]:
    names = {(x.metadata["Name"], x.version) for x in metadata.distributions()}
    return sorted(((name, version) for name, version in names if name), key=lambda x: x[0].lower())
