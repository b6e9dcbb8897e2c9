"""The front-end of a detector that has none."""

from retina_plugin.registry import FRONT_ENDS


@FRONT_ENDS.register()
def none() -> None:
    """No front-end: the backbone sees the normalised batch."""
