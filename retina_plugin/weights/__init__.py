"""Weights of other frameworks: reading them safely, mapping them, converting whole detectors."""
