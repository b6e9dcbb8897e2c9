"""Configs by name: those of this package, and those that other packages offer.

A package of yours offers the configs in its folder by an entry point::

    [project.entry-points."retina_plugin.configs"]
    mine = "my_package.configs"

They are then called ``mine/<path in the folder>``, and ``mine://<path>.yaml`` in ``_BASE_``.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from retina_plugin.config.packaged import configs_folder
from retina_plugin.config.safe_yaml import ConfigFileError

logger = logging.getLogger(__name__)

OWN = "retina_plugin"
GROUP = "retina_plugin.configs"
SCHEME = "://"
LAZY = ".py"
SUFFIXES = (".yaml", ".yml", LAZY)
BASES = "_base_"  # folder of parts of configs
WILDCARDS = frozenset("*?[")
HELP = "`retina configs` lists all names."


@dataclass(frozen=True)
class NamedConfig:
    """A config file that has a name.

    Attributes:
        stem: the name without the file's suffix, such as ``modern/atss_R_50_FPN_1x``.
        path: the file.
    """

    stem: str
    path: Path

    @property
    def name(self) -> str:
        """The name as it is listed; a LazyConfig's has its suffix."""
        return f"{self.stem}{LAZY}" if self.path.suffix == LAZY else self.stem

    @property
    def is_base(self) -> bool:
        """Whether this is a part of other configs, not a config to train."""
        return BASES in PurePosixPath(self.stem).parts

    def comments(self) -> list[str]:
        """The comment lines at the start of the file, without their marks."""
        lines: list[str] = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                break
            lines.append(line.removeprefix("#").strip())
        return lines

    @property
    def description(self) -> str:
        """The first comment line of the file."""
        return next(iter(self.comments()), "")

    @property
    def expected(self) -> str:
        """What the comment ``expected:`` of the file says, "" without one."""
        start = "expected:"
        found = (line for line in self.comments() if line.startswith(start))
        return next(found, start).removeprefix(start).strip()

    @property
    def measured(self) -> bool:
        """Whether the file's expected result was measured by this project."""
        return bool(self.expected) and "not measured" not in self.expected


def config_folders() -> dict[str, Path]:
    """The folder of this package's configs and those of the entry points, by their names.

    An entry point that cannot be used is left out with a warning.

    Raises:
        ConfigFileError: this package's configs are missing.
    """
    return {OWN: configs_folder(), **offered_folders()}


@cache
def offered_folders() -> dict[str, Path]:
    """The folders of other packages, by the names of their entry points."""
    folders: dict[str, Path] = {}
    for point in entry_points(group=GROUP):
        offered = f"configs of the entry point '{point.name} = {point.value}' ({GROUP})"
        if point.name == OWN or point.name in folders:
            logger.warning(f"{offered} are left out: another package's have this name")
            continue
        try:
            folders[point.name] = _folder_of(point)
        except Exception as error:  # importing somebody else's package can raise anything
            logger.warning(f"{offered} are left out: {type(error).__name__}: {error}")
    return folders


def _folder_of(point: EntryPoint) -> Path:
    spec = find_spec(point.module)
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not folders:
        raise ModuleNotFoundError(f"there is no package {point.module}")
    return Path(folders[0])


def named_configs(pattern: str = "*", *, folder: str | None = None) -> list[NamedConfig]:
    """The configs whose name or file name matches a pattern, this package's first.

    Args:
        pattern: shell-style wildcards; text without any matches the names that contain it.
            Parts of configs (``_base_``) match only if the pattern names their folder.
        folder: only those of this entry point.
    """
    if not WILDCARDS & set(pattern):
        pattern = f"*{pattern}*"
    return [
        config
        for config in _all(folder)
        if (not config.is_base or BASES in pattern)
        and any(
            fnmatchcase(text, pattern)
            for text in (config.stem, config.name, PurePosixPath(config.name).name)
        )
    ]


def list_configs(pattern: str = "*") -> list[str]:
    """The names of the packaged configs, and of those that other packages offer.

    Args:
        pattern: shell-style wildcards, matched with the name and with its last part:
            ``"atss*"``, ``"modern/*"``. Text without wildcards matches the names that contain it.

    Returns:
        Names that :func:`~retina_plugin.get_config`, ``--config-file`` and every verb take.
    """
    return [config.name for config in named_configs(pattern)]


def _all(folder: str | None = None) -> Iterator[NamedConfig]:
    for name, root in config_folders().items():
        if folder not in (None, name):
            continue
        prefix = "" if name == OWN or folder else f"{name}/"
        for path in sorted(root.rglob("*")):
            if path.suffix in SUFFIXES and not (path.suffix == LAZY and path.name.startswith("_")):
                yield NamedConfig(
                    f"{prefix}{path.relative_to(root).with_suffix('').as_posix()}", path
                )


def find_config(name: str | Path) -> Path:
    """The file of a config: an existing path, else the config of that name.

    Args:
        name: path of a file, or a name with or without folder and suffix
            (``modern/atss_R_50_FPN_1x``, ``atss_R_50_FPN_1x.yaml``), or ``retina_plugin://<name>``.

    Raises:
        ConfigFileError: there is neither such a file nor such a name, or it names several configs.
    """
    text = str(name)
    if SCHEME in text:
        return find_url(text)
    path = Path(text).expanduser()
    if path.is_file():
        return path
    found = _matches(text, _all())
    if len(found) > 1:
        raise ConfigFileError(_ambiguous(text, found))
    if found:
        return found[0].path
    if not text:
        raise ConfigFileError(f"an empty text names no config. {HELP}")
    if path.is_dir():
        raise ConfigFileError(f"{text} is a folder, not a config file. {HELP}")
    raise ConfigFileError(
        f"{text}: there is no such config file: the path does not exist, and no config has this "
        f"name.{_near(text, _all())} {HELP}"
    )


def find_url(url: str) -> Path:
    """The file of ``<entry point>://<name>``, such as ``retina_plugin://_base_/recipes/atss.yaml``.

    Raises:
        ConfigFileError: no such entry point, or no such config in it.
    """
    folder, _, name = url.partition(SCHEME)
    if folder not in config_folders():
        known = ", ".join(f"{name}{SCHEME}" for name in config_folders())
        raise ConfigFileError(
            f"'{url}' is a URL. A config is not fetched from the network behind your back: "
            f"download it, look at it, and name the local file. Installed configs: {known}"
        )
    found = _matches(name, _all(folder))
    if len(found) > 1:
        raise ConfigFileError(_ambiguous(url, found))
    if not found:
        raise ConfigFileError(f"'{url}' does not exist.{_near(name, _all(folder))} {HELP}")
    return found[0].path


def _matches(text: str, configs: Iterator[NamedConfig]) -> list[NamedConfig]:
    """The configs of that very name, else those whose name ends with it."""
    suffix = next((suffix for suffix in SUFFIXES if text.endswith(suffix)), "")
    stem = text.removesuffix(suffix)
    fit = [x for x in configs if not suffix or x.path.suffix == suffix]
    exact = [x for x in fit if x.stem == stem]
    return exact or [x for x in fit if x.stem.endswith(f"/{stem}") and not x.is_base]


def _ambiguous(text: str, found: list[NamedConfig]) -> str:
    names = ", ".join(f"{config.stem}{config.path.suffix}" for config in found)
    return f"'{text}' names several configs: {names}. Write one of these."


def _near(text: str, configs: Iterator[NamedConfig]) -> str:
    """A hint at the names that may be meant, by the whole name or its last part."""
    wanted = PurePosixPath(text)
    wanted = wanted.with_suffix("") if wanted.suffix in SUFFIXES else wanted
    by_text: dict[str, list[str]] = {}
    for config in configs:
        if not config.is_base or BASES in text:
            for key in {config.stem, PurePosixPath(config.stem).name}:
                by_text.setdefault(key, []).append(config.name)
    near = by_text.get(wanted.name) or [
        name
        for key in (str(wanted), wanted.name)
        for close in difflib.get_close_matches(key, by_text, n=3, cutoff=0.75)
        for name in by_text[close]
    ]
    return f" Did you mean {' or '.join(list(dict.fromkeys(near))[:3])}?" if near else ""
