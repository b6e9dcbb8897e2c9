"""Load a yaml config or a LazyConfig as a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from retina_plugin.config.config_file import ConfigKeyError, load_config, own_keys
from retina_plugin.config.names import find_config
from retina_plugin.config.safe_yaml import ConfigFileError
from retina_plugin.runs.lazy_run import LazyRun
from retina_plugin.runs.lazy_settings import SOURCE, LazySettings, load_lazy_settings
from retina_plugin.runs.run import Run
from retina_plugin.runs.yaml_run import YamlRun


def load_run(
    config: str | Path | CfgNode | Run, overrides: Sequence[Any] = (), *, allow_unsafe: bool = False
) -> Run:
    """Load the run of a config.

    Args:
        config: the path of a yaml or of a LazyConfig (``.py``, which runs as Python); a name that
            ``retina configs`` lists; or a config or a run, of which a copy is made.
        overrides: ``KEY VALUE`` or ``KEY=VALUE``; for a LazyConfig also ``path.key=value``.
        allow_unsafe: whether to run the Python tags of a yaml, as Detectron2 does.

    Raises:
        ConfigFileError, UnknownNameError: see ``load_config`` and ``load_lazy_settings``.
    """
    if isinstance(config, CfgNode | Run):
        return run_of(load_config("", overrides, base=run_of(config).settings))
    path = str(find_config(config)) if str(config) else ""
    if is_lazy(path):
        return LazyRun(load_lazy_settings(path, overrides))
    try:
        return YamlRun(load_config(path, overrides, allow_unsafe=allow_unsafe), path)
    except ConfigKeyError as error:
        if f"unknown key {SOURCE}." not in str(error):
            raise
        raise ConfigFileError(
            f"{path}: these are the settings of a training from a LazyConfig, without its model: "
            f"give the LazyConfig, which {SOURCE} names"
        ) from None


def run_of(config: CfgNode | Run) -> Run:
    """Return the run of a config: a ``LazyRun`` if it has a LazyConfig, else a ``YamlRun``."""
    if isinstance(config, Run):
        return config
    return LazyRun(config) if isinstance(config, LazySettings) else YamlRun(config)


def is_lazy(path: str | Path) -> bool:
    """Whether a config file is a LazyConfig."""
    return Path(path).suffix == ".py"


def keys_set_in(path: str | Path, overrides: Sequence[Any] = ()) -> dict[str, str] | None:
    """Return the keys set by the user in a file or overrides; None for a LazyConfig (all)."""
    return None if is_lazy(path) else own_keys(path, overrides)
