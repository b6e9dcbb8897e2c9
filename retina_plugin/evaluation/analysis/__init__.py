"""What detections are worth, where they fail and on what."""

from retina_plugin.evaluation.analysis.analyse import analyse
from retina_plugin.evaluation.analysis.results import Analysis

__all__ = ["Analysis", "analyse"]
