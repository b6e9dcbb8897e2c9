"""A run's settings: those that differ from the defaults apart from all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml
from detectron2.config import get_cfg

from retina_plugin.config.defaults import add_retina_config


class Setting(NamedTuple):
    """A key with its value, and what it would be if nobody had set it; None: there is no such."""

    key: str
    value: str
    default: str | None


def changed_settings(config: dict[str, Any]) -> list[Setting]:
    """The keys of a run's ``config.yaml`` that are not as the defaults say, sorted."""
    defaults = _defaults()
    return [
        Setting(key, one_line(value), one_line(defaults[key]) if key in defaults else None)
        for key, value in sorted(leaves(config))
        if key not in defaults or value != defaults[key]
    ]


def different_settings(config: dict[str, Any], other: dict[str, Any]) -> list[Setting]:
    """The keys in which two runs differ; as ``default`` the other's value."""
    own, others = dict(leaves(config)), dict(leaves(other))
    return [
        Setting(
            key,
            one_line(own[key]) if key in own else "(not there)",
            one_line(others[key]) if key in others else None,
        )
        for key in sorted({**own, **others})
        if key not in own or key not in others or own[key] != others[key]
    ]


def as_yaml(config: dict[str, Any]) -> str:
    """All settings, to read or to copy."""
    return yaml.safe_dump(config, sort_keys=True, default_flow_style=None, width=100)


def leaves(config: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is no group of keys, with its dotted key."""
    for key, value in config.items():
        name = f"{above}{key}"
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{name}.")
        else:
            yield name, value


def _defaults() -> dict[str, Any]:
    """As a run would write them: tuples are lists in yaml."""
    cfg = add_retina_config(get_cfg())
    cfg.MODEL.RETINANET.NUM_CLASSES = None  # of the data, see load_config
    return dict(leaves(yaml.safe_load(cfg.dump())))


def one_line(value: Any) -> str:
    """A value as yaml has it."""
    text = yaml.safe_dump(value, default_flow_style=True, width=1000).strip()
    return text.removesuffix("\n...").strip()
