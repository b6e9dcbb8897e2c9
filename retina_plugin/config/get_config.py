"""``get_config``: a config by its name or path, in either language."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from omegaconf import DictConfig

from retina_plugin.config.config_file import load_config
from retina_plugin.config.lazy_file import load_lazy
from retina_plugin.config.names import LAZY, find_config


def get_config(name: str | Path, overrides: Sequence[Any] = ()) -> CfgNode | DictConfig:
    """The config of a name that ``list_configs`` lists, or of a file, with overrides.

    Example:
        >>> cfg = get_config("modern/atss_R_50_FPN_1x", ["SOLVER.MAX_ITER=1000"])
        >>> cfg.MODEL.RETINANET.ASSIGNER.NAME, cfg.SOLVER.MAX_ITER
        ('ATSSAssigner', 1000)

    Args:
        name: see :func:`~retina_plugin.config.names.find_config`. An existing file comes first.
        overrides: ``KEY=VALUE``, of a yaml config also ``KEY, VALUE``.

    Returns:
        Of a yaml config a Detectron2 ``CfgNode``, not frozen, in which
        ``MODEL.RETINANET.NUM_CLASSES`` is None unless it is set. Of a LazyConfig, which runs as
        Python, a ``DictConfig``.

    Raises:
        ConfigFileError: there is no such file or name, it names several, or a value is wrong.
        UnknownNameError: an override of a key that does not exist.
    """
    path = find_config(name)
    if path.suffix == LAZY:
        return load_lazy(str(path), [str(override) for override in overrides])
    return load_config(path, overrides)
