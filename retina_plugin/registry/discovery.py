"""Importing whole packages, so that a new component needs no entry in a list."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable


def import_submodules(package: str, paths: Iterable[str]) -> None:
    """Import every module of a package, so that its components register themselves."""
    for module in pkgutil.iter_modules(paths):
        importlib.import_module(f"{package}.{module.name}")
