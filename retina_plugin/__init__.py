"""RetinaNet for Detectron2, every part replaceable. Importing the package registers everything.

Only on the command line, ``retina`` or ``python -m retina_plugin.cli``, this waits until a verb
runs (``cli/_verb.py``), so that ``--help`` does not wait for PyTorch.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from retina_plugin.version import __version__

__all__ = ["__version__"]


def _is_command_line() -> bool:
    entry_point = getattr(sys.modules.get("retina_cli"), "starting", False)
    return entry_point or (sys.argv[:1] == ["-m"] and "retina_plugin.cli" in sys.orig_argv)


if TYPE_CHECKING or not _is_command_line():
    from retina_plugin import public
    from retina_plugin.public import *  # noqa: F403

    __all__ += public.__all__


def __getattr__(name: str) -> Any:
    """A public name before everything is registered, which this does."""
    if not name.startswith("_") and find_spec(f"{__name__}.{name}") is None:
        public = import_module("retina_plugin.public")
        if name in public.__all__:
            return getattr(public, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
