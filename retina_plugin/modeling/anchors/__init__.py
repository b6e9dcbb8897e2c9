"""Anchor generators, registered with Detectron2; one a file."""

from retina_plugin.registry import import_submodules

import_submodules(__name__, __path__)
