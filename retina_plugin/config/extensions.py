"""Files and modules of a user's own, imported so that their components register."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

from retina_plugin.config.safe_yaml import ConfigFileError


def import_extension(name: str) -> None:
    """Import a module by its name or a file by its path, so that its components register.

    A file is imported by its stem, its folder being the last that is searched: so the processes of
    a data loader, too, find what was defined there, and it never takes another module's place.

    Raises:
        ConfigFileError: there is no such module or file, or the stem is another module's name.
    """
    path = Path(name).resolve()
    if path.suffix != ".py":
        if not _exists(name):
            raise ConfigFileError(f"--import {name}: no such module; give a module or a .py file")
        importlib.import_module(name)
        return
    if not path.is_file():
        raise ConfigFileError(f"--import {name}: there is no such file")
    if not path.stem.isidentifier():
        raise ConfigFileError(
            f"--import {name}: {path.stem} cannot be a module's name: rename the file to letters, "
            "digits and underscores"
        )
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
        importlib.invalidate_caches()
    spec = importlib.util.find_spec(path.stem)
    found = spec.origin if spec is not None else None
    if found is None or not Path(found).is_file() or not path.samefile(found):
        raise ConfigFileError(
            f"--import {name}: there is another module {path.stem} ({found}): rename the file"
        )
    importlib.import_module(path.stem)


def _exists(module: str) -> bool:
    try:
        return all(module.split(".")) and importlib.util.find_spec(module) is not None
    except ModuleNotFoundError as error:  # the package that it would be in
        if error.name and f"{module}.".startswith(f"{error.name}."):
            return False
        raise
