"""Placeholder until the set-up work lands."""


def require_detectron2() -> None:
    """Nothing yet."""
