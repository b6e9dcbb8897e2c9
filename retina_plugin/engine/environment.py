"""Environment of a run: package versions, devices and the commit of the code."""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import detectron2
import torch

from retina_plugin.version import __version__

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "fvcore", "pycocotools", "hotcoco")


def environment() -> dict[str, str]:
    """Return human-readable names and values in display order; never raises."""
    found = {
        "retina_plugin": __version__,
        "commit": git_commit(Path(__file__).parent),
        "Python": platform.python_version(),
        "platform": platform.platform(),
        "Detectron2": f"{detectron2.__version__} ({Path(detectron2.__file__).parent})",
        "Detectron2's compiled _C": "there" if has_compiled_detectron2() else "not there",
    }
    found |= {name: _version(name) for name in PACKAGES}
    found["CUDA of torch"] = torch.version.cuda or "none"
    found["GPUs"] = _gpus()
    found["CPU cores"] = str(len(os.sched_getaffinity(0)) if _has_affinity() else os.cpu_count())
    found["threads of torch"] = str(torch.get_num_threads())
    return found


def git_commit(folder: Path) -> str:
    """Return the git commit of ``folder``, with ``-dirty`` if modified, or ``unknown``."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


def has_compiled_detectron2() -> bool:
    """Whether Detectron2's compiled operators are available; RetinaNet does not need them."""
    try:
        return importlib.util.find_spec("detectron2._C") is not None
    except (ImportError, ValueError):
        return False


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _gpus() -> str:
    if not torch.cuda.is_available():
        return "none"
    count = torch.cuda.device_count()
    return ", ".join(torch.cuda.get_device_name(index) for index in range(count))


def _has_affinity() -> bool:
    return hasattr(os, "sched_getaffinity")
