"""How the anchors and the boxes of a data set fit each other."""

from retina_plugin.workbench.anchors.coverage import Coverage, coverage_of
from retina_plugin.workbench.anchors.fitting import FittedAnchors, fit_anchors

__all__ = ["Coverage", "FittedAnchors", "coverage_of", "fit_anchors"]
