"""One loss a file: a pure function and a thin class around it."""

from retina_plugin.registry import import_submodules

import_submodules(__name__, __path__)
