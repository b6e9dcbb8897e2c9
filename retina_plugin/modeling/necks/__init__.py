"""Necks: what makes the head's levels of a backbone's stages; one class a file."""

from retina_plugin.registry import import_submodules

import_submodules(__name__, __path__)
