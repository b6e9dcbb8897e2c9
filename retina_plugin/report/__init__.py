"""One HTML page about a run."""

from retina_plugin.report.evaluated_sets import EvaluatedSet, find_sets
from retina_plugin.report.page import write_report

__all__ = ["EvaluatedSet", "find_sets", "write_report"]
