"""What the network predicts from the pyramid; one head a file."""

from retina_plugin.registry import import_submodules

import_submodules(__name__, __path__)
