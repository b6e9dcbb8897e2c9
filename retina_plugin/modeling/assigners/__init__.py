"""Anchors x ground truth -> :class:`~retina_plugin.modeling.contracts.DenseTargets`.

One assigner a file.
"""

from retina_plugin.registry import import_submodules

import_submodules(__name__, __path__)
