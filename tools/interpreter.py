"""What the running interpreter has, and which interpreter is to run."""

import contextlib
import importlib.metadata
import importlib.util
import os
import site
import subprocess
import sys
import tempfile
from pathlib import Path

REEXEC_GUARD = "RETINA_SETUP_REEXEC"


def find_detectron2() -> str | None:
    """Return the file of a Detectron2 that this interpreter has, without its slow import."""
    spec = importlib.util.find_spec("detectron2")
    return spec.origin if spec else None


def import_error_of_detectron2() -> str | None:
    """Import this interpreter's Detectron2 in another process; returns the error's last line."""
    result = subprocess.run(
        [sys.executable, "-c", "import detectron2"],
        cwd=tempfile.gettempdir(),  # the current folder comes first on sys.path
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if result.returncode == 0:
        return None
    return (result.stderr.strip().splitlines() or [f"exit status {result.returncode}"])[-1]


def pinned_versions(*names: str) -> list[str]:
    """Return `name==version` of those of the distributions that this interpreter has."""
    pins = []
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            pins.append(f"{name}=={importlib.metadata.version(name)}")
    return pins


def package_folders() -> list[str]:
    """Return the folders by which another interpreter finds all packages that this one has.

    Added with `site.addsitedir`, they bring along what their own .pth files name: editable installs
    and the packages of an environment that itself stands on another.
    """
    folders = site.getsitepackages()
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    folders += os.environ.get("PYTHONPATH", "").split(os.pathsep)
    present = [str(Path(folder).resolve()) for folder in folders if folder]
    return [folder for folder in dict.fromkeys(present) if Path(folder).is_dir()]


def continue_with_maker(maker: str, *, venv: Path, keep: bool) -> None:
    """Start anew with the interpreter that made the environment, where that one shall go on.

    That is so if the user named none (`keep`), and if the running one is the environment's own, as
    it is in a shell where that is activated.

    Args:
        maker: The interpreter that made the environment; "" if there is none.
        venv: The environment's folder.
        keep: Whether to go on with `maker`, whatever interpreter is running.
    """
    inside = Path(sys.prefix).resolve() == venv.resolve()
    if not (keep or inside) or REEXEC_GUARD in os.environ:
        return
    if not (maker and Path(maker).is_file()):
        maker = getattr(sys, "_base_executable", sys.executable) if inside else sys.executable
    if maker != sys.executable:
        os.environ[REEXEC_GUARD] = "1"
        os.execv(maker, [maker, *sys.argv])
