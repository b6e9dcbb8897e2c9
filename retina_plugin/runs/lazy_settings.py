"""Settings of a LazyConfig, expressed as yaml config keys."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode, get_cfg, instantiate
from detectron2.data import DatasetCatalog, get_detection_dataset_dicts
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf

from retina_plugin.config.config_file import load_config
from retina_plugin.config.defaults import add_retina_config
from retina_plugin.config.lazy_file import load_lazy
from retina_plugin.config.safe_yaml import ConfigFileError
from retina_plugin.runs.lazy_keys import (
    FREE,
    OF_OBJECTS,
    OF_THE_TRAINING,
    home_of,
    object_settings,
    plain,
    training_settings,
)

SOURCE = "LAZY_CONFIG"  # in a run's config.yaml, the path of the LazyConfig


class LazySettings(CfgNode):
    """A config whose model, optimizer and loaders are defined by a LazyConfig.

    Has plain Python attributes, hidden from yacs: ``lazy``, the ``DictConfig`` as it was
    read; ``source``, its path; ``read``, the initial value of each key of ``OF_OBJECTS``.
    """

    @classmethod
    def of(cls, settings: CfgNode, lazy: DictConfig, source: str) -> LazySettings:
        """Create the settings together with the LazyConfig that they describe."""
        node = cls()
        node.__dict__.update(vars(settings), lazy=lazy, source=source)
        for key, value in settings.items():
            dict.__setitem__(node, key, value)
        node.__dict__["read"] = {key: value_of(node, key) for key in OF_OBJECTS}
        return node

    @classmethod
    def _decode_cfg_value(cls, value: Any) -> Any:
        """yacs would make groups of this class, which are not of the type of the groups here."""
        return CfgNode._decode_cfg_value(value)

    def changed(self) -> Iterator[tuple[str, Any]]:
        """Yield the keys of ``OF_OBJECTS`` changed since reading, with their values."""
        for key, value in self.__dict__["read"].items():
            now = value_of(self, key)
            if now != value:
                yield key, now

    def dump(self, *args: Any, **options: Any) -> str:
        """Dump as yaml with the path of the LazyConfig, since it does not define a model alone."""
        source = str(Path(self.__dict__["source"]).absolute())
        return super().dump(*args, **options) + yaml.safe_dump({SOURCE: source}, width=10_000)


def load_lazy_settings(path: str, overrides: Sequence[Any] = ()) -> LazySettings:
    """Load the settings of a ``.py`` file, which is executed.

    Args:
        path: path of the file.
        overrides: ``path.key=value`` for the LazyConfig, and ``KEY VALUE`` or ``KEY=VALUE`` for
            yaml keys, which are applied last.

    Raises:
        ConfigFileError: see :func:`load_lazy`; or for a key that the LazyConfig's objects define.
        UnknownNameError: if a key does not exist; lists the valid ones.
    """
    own, upper = split_overrides(overrides)
    lazy = load_lazy(path, own)
    settings = add_retina_config(get_cfg())
    settings.SOLVER.WARMUP_ITERS, settings.SOLVER.STEPS = 0, ()
    settings.INPUT.MIN_SIZE_TRAIN, settings.INPUT.MIN_SIZE_TEST = (0,), 0
    settings.INPUT.RANDOM_FLIP = "none"
    settings.DATALOADER.NUM_WORKERS = 0
    found = dict(training_settings(lazy.train, settings)) | dict(object_settings(lazy))
    found |= _descriptions(lazy) | _data_sets(lazy, path)
    settings = _merged(settings, found, path)
    settings = _merged(settings, _schedule(lazy, settings.SOLVER.MAX_ITER), path)
    settings = LazySettings.of(settings, lazy, path)
    given = _flat(plain(lazy.train.get("settings")) or {})
    for key in given:
        if home_of(key):
            raise ConfigFileError(f"{path}: train.settings has {key}: set {home_of(key)} instead")
    given = _merged(settings, given, f"{path}: train.settings")
    return _checked(settings, load_config("", upper, base=given), path)


def value_of(settings: CfgNode, key: str) -> Any:
    """Return the value of a dotted key."""
    node: Any = settings
    for part in key.split("."):
        node = node[part]
    return node


def target_of(node: Any) -> Any:
    """Return the target of a LazyCall node, or None for other nodes."""
    target = node.get("_target_") if isinstance(node, DictConfig) else None
    return locate(target) if isinstance(target, str) else target


def split_overrides(overrides: Sequence[Any]) -> tuple[list[str], list[Any]]:
    """Split overrides into those of the LazyConfig and those of yaml keys."""
    own: list[str] = []
    upper: list[Any] = []
    words = iter(overrides)
    for word in words:
        key, equals, _ = str(word).partition("=")
        if not key.partition(".")[0].isupper():
            own.append(str(word))
            continue
        upper.append(word)
        if not equals:
            upper += itertools.islice(words, 1)
    return own, upper


def _merged(settings: CfgNode, values: Mapping[str, Any], where: str) -> CfgNode:
    """Merge ``values`` into ``settings`` with the checks of a yaml config."""
    words = [x for key, value in values.items() for x in (key, _as(settings, key, value))]
    try:
        return load_config("", words, base=settings)
    except ConfigFileError as error:
        raise ConfigFileError(f"{where}: {error}") from None


def _as(settings: CfgNode, key: str, value: Any) -> Any:
    """A whole number where a fraction is expected, which Python takes and yacs refuses."""
    node: Any = settings
    for part in key.split("."):
        node = node.get(part) if isinstance(node, CfgNode) else None
    return float(value) if isinstance(node, float) and type(value) is int else value


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Flatten nested keys, which may be dotted, into dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{above}{key}.")
        else:
            found[f"{above}{key}"] = value
    return found


def _checked(before: CfgNode, after: LazySettings, path: str) -> LazySettings:
    """Return ``after`` if no key was set that the LazyConfig's objects define."""
    ours = (*FREE, *OF_OBJECTS, *OF_THE_TRAINING)
    for key, value in _leaves(after):
        same = value == value_of(before, key)
        if not same and not any(key == x or key.startswith(f"{x.rstrip('.')}.") for x in ours):
            raise ConfigFileError(
                f"{key} {value}: {path} is a LazyConfig, whose own objects decide this: change "
                "model, optimizer, lr_multiplier or dataloader there"
            )
    return after


def _leaves(node: CfgNode, path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _descriptions(lazy: DictConfig) -> dict[str, Any]:
    """Describe the objects in the settings, for information only."""
    found: dict[str, Any] = {}
    for key, node in (
        ("MODEL.META_ARCHITECTURE", lazy.model),
        ("MODEL.RETINANET.ASSIGNER.NAME", lazy.model.get("assigner")),
        ("MODEL.ANCHOR_GENERATOR.NAME", lazy.model.get("anchor_generator")),
        ("SOLVER.OPTIMIZER", lazy.optimizer),
    ):
        if target_of(node) is not None:
            found[key] = target_of(node).__name__
    for key, split in (("INPUT.AUGMENTATIONS", "train"), ("INPUT.AUGMENTATIONS_TEST", "test")):
        mapper = OmegaConf.select(lazy, f"dataloader.{split}.mapper")
        listed = mapper.get("augmentations") if isinstance(mapper, DictConfig) else None
        found[key] = [_augmentation(x) for x in listed or ()] or [{"NAME": "none"}]
        if split == "train" and isinstance(mapper, DictConfig) and "image_format" in mapper:
            found["INPUT.FORMAT"] = mapper.image_format
    return found


def _augmentation(node: Any) -> dict[str, Any]:
    target = target_of(node)
    if target is None:
        return {"NAME": type(node).__name__}
    arguments = {name: value for name, value in node.items() if name != "_target_"}
    return {"NAME": target.__name__, **{k: as_text(x) for k, x in arguments.items()}}


def as_text(value: Any) -> Any:
    """Convert a part of a LazyConfig to plain yaml values, objects by name."""
    if isinstance(value, DictConfig | Mapping):
        return {str(key): as_text(x) for key, x in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [as_text(x) for x in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    name = getattr(value, "__qualname__", None)
    return f"{value.__module__}.{name}" if name else repr(value)


def _data_sets(lazy: DictConfig, path: str) -> dict[str, tuple[str, ...]]:
    """Return ``DATASETS``; other data than registered names become ``<file>_<split>``."""
    found = {}
    for split in ("train", "test"):
        key, node = f"DATASETS.{split.upper()}", lazy.dataloader.get(split)
        found[key] = ()
        if node is None or (split == "test" and "evaluator" not in lazy.dataloader):
            continue
        data = node.get("dataset") if isinstance(node, DictConfig) else None
        if target_of(data) is get_detection_dataset_dicts:
            names = plain(data.get("names")) or ()
            found[key] = (names,) if isinstance(names, str) else tuple(names)
            continue
        name = f"{Path(path).stem}_{split}"
        if name in DatasetCatalog:
            DatasetCatalog.remove(name)
        DatasetCatalog.register(name, lambda data=data: () if data is None else instantiate(data))
        found[key] = (name,)
    return found


def _schedule(lazy: DictConfig, steps: int) -> dict[str, Any]:
    """Describe the learning rate schedule in training steps, as far as known."""
    multiplier = lazy.lr_multiplier
    found = {"SOLVER.WARMUP_ITERS": round(multiplier.get("warmup_length", 0) * steps)}
    inner = multiplier.get("scheduler", multiplier)
    found["SOLVER.LR_SCHEDULER_NAME"] = getattr(target_of(inner), "__name__", "unknown")
    milestones = plain(inner.get("milestones")) or ()
    if milestones:
        end = inner.get("num_updates") or milestones[-1]
        found["SOLVER.STEPS"] = tuple(round(x / end * steps) for x in milestones if x < end)
    return found
