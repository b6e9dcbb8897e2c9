"""A registered component and its settings -> an object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from detectron2.config import CfgNode


def instantiate(
    component: Callable[..., Any], settings: Mapping[str, Any], cfg: CfgNode, **context: Any
) -> Any:
    """Call ``component`` with its settings as lower-case keywords.

    Args:
        component: a class or a function. Where it has ``from_config(cfg, **context)``, as
            Detectron2's configurable classes do, what that returns are further keywords.
        settings: by key.
        cfg: the whole config.
        context: what ``from_config`` needs besides, such as the shapes of the features.
    """
    arguments = {key.lower(): value for key, value in settings.items()}
    from_config = getattr(component, "from_config", None)
    if from_config is not None:
        arguments.update(from_config(cfg, **context))
    return component(**arguments)
