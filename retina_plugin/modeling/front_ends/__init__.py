"""Front-ends: what changes the images before the backbone sees them; one class a file."""

from retina_plugin.registry import import_submodules

import_submodules(__name__, __path__)
