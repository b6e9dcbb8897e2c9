"""LazyConfigs for ``train_net.py``: ``model``, ``dataloader``, ``optimizer``, ``train``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.config import LazyConfig
from omegaconf import DictConfig

from retina_plugin.config.names import find_config
from retina_plugin.config.safe_yaml import ConfigFileError
from retina_plugin.registry import unknown_name

REQUIRED = ("model", "dataloader", "optimizer", "lr_multiplier", "train")


def load_lazy(config_file: str, overrides: Sequence[str] = ()) -> DictConfig:
    """The config of a ``.py`` file, which runs it, with overrides.

    Raises:
        ConfigFileError: no such file, or it lacks one of ``REQUIRED``; an override without ``=``.
        UnknownNameError: an override of a key that does not exist; lists the valid ones.
    """
    config_file = str(find_config(config_file))
    cfg = LazyConfig.load(config_file)
    missing = [name for name in REQUIRED if name not in cfg]
    if missing:
        raise ConfigFileError(
            f"{config_file}: a LazyConfig for train_net.py defines {', '.join(REQUIRED)}; this one "
            f"lacks {', '.join(missing)}"
        )
    for override in overrides:
        _check_override(cfg, override)
    return LazyConfig.apply_overrides(cfg, list(overrides))


def _check_override(cfg: DictConfig, override: str) -> None:
    """Refuse a key that nothing reads; a ``_target_`` takes arguments that are not written yet."""
    path, equals, _ = override.partition("=")
    if not equals:
        raise ConfigFileError(
            f"override {override}: with a LazyConfig write path.key=value, such as "
            "train.max_iter=100"
        )
    node: Any = cfg
    for key in path.lstrip("+").split("."):
        if not isinstance(node, DictConfig) or (key not in node and "_target_" in node):
            return
        if key not in node:
            raise unknown_name(f"override {path}", key, map(str, node))
        node = node[key]
