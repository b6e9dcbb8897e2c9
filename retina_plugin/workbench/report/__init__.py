"""One HTML page about a run."""

from retina_plugin.workbench.report.evaluated_sets import EvaluatedSet, find_sets
from retina_plugin.workbench.report.page import write_report

__all__ = ["EvaluatedSet", "find_sets", "write_report"]
