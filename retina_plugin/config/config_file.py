"""Load a yaml config and command-line overrides into Detectron2's config, running no code.

Detectron2's `CfgNode.merge_from_file` runs the Python tags of a yaml by default and answers a
misspelt key with its name alone. `load_config` refuses the tags, and says where each mistake
stands and what would be right.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode, downgrade_config, get_cfg, upgrade_config
from detectron2.config.compat import guess_version
from fvcore.common.config import BASE_KEY

from retina_plugin.config.defaults import add_retina_config
from retina_plugin.config.detectron2_configs import PREFIX, find_detectron2_config
from retina_plugin.config.mistakes import (
    describe_mistyped,
    describe_unknown,
    first_unknown,
    leaves,
    node_at,
)
from retina_plugin.config.names import OWN, SCHEME, config_folders, find_config, find_url
from retina_plugin.config.safe_yaml import ConfigFileError, read_yaml
from retina_plugin.registry import UnknownNameError

logger = logging.getLogger(__name__)

NUM_CLASSES = "MODEL.RETINANET.NUM_CLASSES"
STOCK_BASE = re.compile(rf"(?<![\w./-]){PREFIX}[\w./+-]+")
OVERRIDE = re.compile(r"(?P<key>[A-Za-z_][\w.]*)=(?P<value>.*)", re.DOTALL)


class ConfigKeyError(UnknownNameError):
    """A file or an override sets a key that does not exist; the message lists those that do."""


class SafeCfgNode(CfgNode):
    """Detectron2's CfgNode whose files are read without running code, whatever `allow_unsafe`."""

    @classmethod
    def _open_cfg(cls, filename: str) -> io.StringIO:
        """Hand fvcore, which merges the files of `_BASE_`, the file's plain values as yaml."""
        path = Path(filename)
        values, lines = read_yaml(path)
        if BASE_KEY in values:
            values[BASE_KEY] = [str(base) for _, base in _bases(path, values, lines)]
        return io.StringIO(yaml.safe_dump(values, sort_keys=False))

    @classmethod
    def load_yaml_with_base(cls, filename: str, allow_unsafe: bool = False) -> dict[str, Any]:
        """The values of a file merged over those of its `_BASE_`, of which later ones win.

        Raises:
            ConfigFileError: see `find_keys` and `read_yaml`.
        """
        find_keys(Path(filename))
        try:
            return super().load_yaml_with_base(filename, allow_unsafe=False)
        except AssertionError as error:
            raise ConfigFileError(f"{filename}: {error}") from None


class UnsafeCfgNode(CfgNode):
    """Detectron2's CfgNode, which runs Python tags; `_BASE_` may name installed configs."""

    @classmethod
    def _open_cfg(cls, filename: str) -> io.StringIO:
        with super()._open_cfg(filename) as file:
            text = file.read()
        installed = "|".join(map(re.escape, config_folders()))
        urls = re.compile(rf"\b(?:{installed}){SCHEME}[\w./+-]+")
        text = urls.sub(lambda url: str(find_url(url[0]).resolve()), text)
        return io.StringIO(STOCK_BASE.sub(lambda base: _stock_base(filename, base[0]), text))


def _stock_base(filename: str, base: str) -> str:
    """A base beside the file as it is written, else the path of Detectron2's config."""
    beside = (Path(filename).parent / base).is_file()
    return base if beside else str(find_detectron2_config(base) or base)


def load_config(
    config_file: str | Path,
    overrides: Sequence[Any] = (),
    *,
    allow_unsafe: bool = False,
    base: CfgNode | None = None,
) -> CfgNode:
    """Detectron2's defaults and the plugin's, then a yaml file, then overrides; not frozen.

    Args:
        config_file: path of a yaml file, or the name of an installed config, see
            :func:`~retina_plugin.config.names.find_config`; "" for none.
        overrides: `KEY VALUE` pairs, as Detectron2 takes them, or `KEY=VALUE`, also mixed.
        allow_unsafe: run the Python tags of the file and its bases, as Detectron2 does.
        base: start from a copy of this config instead of the defaults.

    Returns:
        A Detectron2 CfgNode. `MODEL.RETINANET.NUM_CLASSES` is None if neither file nor override
        (nor `base`) set it, so that it may come from the data.

    Raises:
        ConfigKeyError: unknown keys, all of them, with near misses and the valid keys.
        ConfigFileError: the file cannot be read, or a value has the wrong type.
    """
    if base is None:
        cfg = get_cfg()
        add_retina_config(cfg)
        cfg.MODEL.RETINANET.NUM_CLASSES = None
    else:
        cfg = base.clone()
        cfg.defrost()
    if str(config_file):
        cfg = _merge_file(cfg, find_config(config_file), allow_unsafe)
    pairs = parse_overrides(overrides)
    _merge([(tuple(key.split(".")), value, f"override {key}") for key, value in pairs], cfg)
    _check_num_classes(cfg)
    return cfg


def parse_overrides(overrides: Sequence[Any]) -> list[tuple[str, Any]]:
    """Pairs of key and value from `KEY VALUE` and `KEY=VALUE`.

    Raises:
        ConfigKeyError: a key without a value.
    """
    pairs: list[tuple[str, Any]] = []
    rest = iter(overrides)
    for word in rest:
        joined = OVERRIDE.fullmatch(str(word))
        if joined:
            pairs.append((joined["key"], joined["value"]))
            continue
        try:
            pairs.append((str(word), next(rest)))
        except StopIteration:
            raise ConfigKeyError(
                f"override {word} has no value. Write overrides as KEY VALUE or KEY=VALUE, got: "
                f"{' '.join(map(str, overrides))}"
            ) from None
    return pairs


def find_keys(path: Path, chain: tuple[Path, ...] = ()) -> dict[str, str]:
    """Where each dotted key of a file and its bases stands: `file:line`, the winning one.

    Raises:
        ConfigFileError: a `_BASE_` that is missing, a URL, no path, or leads back to itself.
    """
    values, lines = read_yaml(path)
    chain = (*chain, path)
    found: dict[str, str] = {}
    for name, base in _bases(path, values, lines):
        if any(base.samefile(earlier) for earlier in chain):
            circle = " -> ".join(map(str, (*chain, base)))
            at = f"{path}:{lines[BASE_KEY]}: {BASE_KEY}"
            raise ConfigFileError(f"{at} '{name}' leads back to itself: {circle}.")
        found |= find_keys(base, chain)
    return found | {key: f"{path}:{line}" for key, line in lines.items()}


def _bases(path: Path, values: dict[str, Any], lines: dict[str, int]) -> list[tuple[str, Path]]:
    """What `_BASE_` names in a file, relative paths or URLs of installed configs, and the files.

    Raises:
        ConfigFileError: a base is not a text, a URL of the network, or not there.
    """
    names = values.get(BASE_KEY, [])
    names = [names] if isinstance(names, str) else names
    at = f"{path}:{lines.get(BASE_KEY)}: {BASE_KEY}"
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigFileError(f"{at} must be a path or a list of paths, got {names!r}.")
    files = []
    for name in names:
        if SCHEME in name:
            try:
                files.append((name, find_url(name).resolve()))
            except ConfigFileError as error:
                raise ConfigFileError(f"{at} {error}") from None
            continue
        base = (path.parent / Path(name).expanduser()).resolve()
        if not base.is_file():
            base = find_detectron2_config(name) or base
        if not base.is_file():
            raise ConfigFileError(
                f"{at} '{name}' does not exist: there is no file {base}. An installed config is "
                f"written {OWN}{SCHEME}<name>, such as {OWN}{SCHEME}_base_/recipes/atss.yaml."
            )
        files.append((name, base))
    return files


def own_keys(config_file: str | Path, overrides: Sequence[Any] = ()) -> dict[str, str]:
    """Where each key stands that the user set: in this very file, not its bases, or after it.

    Raises:
        ConfigFileError: see :func:`find_keys` and :func:`parse_overrides`.
    """
    if not str(config_file):
        return {key: "override" for key, _ in parse_overrides(overrides)}
    path = find_config(config_file)
    found = find_keys(path)
    own = {key: at for key, at in found.items() if at.startswith(f"{path}:")}
    return own | {key: "override" for key, _ in parse_overrides(overrides)}


def _merge_file(cfg: CfgNode, path: Path, allow_unsafe: bool) -> CfgNode:
    """`cfg` with a file's values, which may be of an older VERSION of Detectron2's keys."""
    if path.suffix == ".py":
        raise ConfigFileError(f"{path}: a LazyConfig; load_config reads yaml.")
    if allow_unsafe:
        found, values = {}, UnsafeCfgNode.load_yaml_with_base(str(path), allow_unsafe=True)
    else:
        found, values = find_keys(path), SafeCfgNode.load_yaml_with_base(str(path))
    groups = {key: value for key, value in values.items() if isinstance(value, dict)}
    version = values.get("VERSION") or guess_version(groups, str(path))
    latest = cfg.VERSION
    if type(version) is not int or not 1 <= version <= latest:
        raise ConfigFileError(f"{path}: VERSION must be from 1 to {latest}, got {version!r}.")
    settings = [
        (keys, value, found.get(".".join(keys), str(path))) for keys, value in leaves(values)
    ]
    if version == latest:
        _merge(settings, cfg)
        return cfg
    logger.warning(f"{path}: upgrading a config of version {version} to version {latest}.")
    old = downgrade_config(cfg, to_version=version)
    _merge(settings, old)
    return upgrade_config(old)


def _merge(settings: list[tuple[tuple[str, ...], Any, str]], cfg: CfgNode) -> None:
    """Set `(path of keys, value, where it stands)` in `cfg`; raise once, with all mistakes."""
    unknown: list[str] = []
    mistyped: list[str] = []
    valid: dict[str, str] = {}
    free = _free_keys()
    for keys, value, where in settings:
        bad = first_unknown(cfg, keys)
        if bad is not None:
            unknown.append(f"{where}: {describe_unknown(cfg, keys, bad)}")
            node = ".".join(keys[:bad])
            of = f"of {node}" if node else "at the top"
            valid[node] = f"Valid keys {of}: {', '.join(sorted(node_at(cfg, keys[:bad])))}."
            continue
        if keys in free:
            node_at(cfg, keys[:-1])[keys[-1]] = None  # else it must keep the type of a file's value
        nested = value
        for key in reversed(keys):
            nested = {key: nested}
        try:
            cfg.merge_from_other_cfg(CfgNode(nested))
        except KeyError as error:  # a key that yacs knows to be renamed
            unknown.append(f"{where}: {error.args[0]}")
        except (AssertionError, ValueError, TypeError, RecursionError, MemoryError):
            mistyped.append(f"{where}: {describe_mistyped(cfg, keys, value)}")
    if unknown:
        raise ConfigKeyError("\n".join([*unknown, *valid.values(), *mistyped]))
    if mistyped:
        raise ConfigFileError("\n".join(mistyped))


def _free_keys() -> frozenset[tuple[str, ...]]:
    """The keys whose default is None: they take a value of any type, a list as well as one text."""
    defaults = add_retina_config(get_cfg())
    return frozenset(keys for keys, value in leaves(defaults) if value is None)


def _check_num_classes(cfg: CfgNode) -> None:
    """None, the mark of "not set", lets any type pass: yacs cannot check this one."""
    value = cfg.MODEL.RETINANET.NUM_CLASSES
    if value is not None and (type(value) is not int or value < 1):
        raise ConfigFileError(f"{NUM_CLASSES} takes a whole number from 1; got {value!r}.")
