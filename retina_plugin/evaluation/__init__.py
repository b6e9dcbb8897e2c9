"""Evaluators by the data set's type."""

from retina_plugin.evaluation.build import build_evaluator

__all__ = ["build_evaluator"]
