"""Weights: read safely from any layout, mapped, converted, saved whole or not at all."""
