"""How the anchors and the boxes of a data set fit each other."""

from retina_plugin.anchor_analysis.coverage import Coverage, coverage_of

__all__ = ["Coverage", "coverage_of"]
