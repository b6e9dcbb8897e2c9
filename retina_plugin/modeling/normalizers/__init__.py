"""What the sums of the losses are divided by; one normalizer a file."""

from retina_plugin.registry import import_submodules

import_submodules(__name__, __path__)
