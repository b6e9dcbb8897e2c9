"""What is compared: configs, each with a label and overrides."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from retina_plugin.config.names import find_config
from retina_plugin.config.safe_yaml import ConfigFileError

HOW = "write LABEL=CONFIG KEY=VALUE ... in one quoted argument; LABEL= and the keys may be left out"


@dataclass(frozen=True)
class Contender:
    """A config file with overrides, under a name that the tables show."""

    label: str
    config_file: Path
    overrides: tuple[str, ...] = ()


def parse_contender(text: str) -> Contender:
    """A contender from ``[LABEL=]CONFIG [KEY=VALUE ...]``; without a label, the file's stem.

    Raises:
        ValueError: nothing is named, the file does not exist, or the label cannot name a folder.
    """
    try:
        first, *overrides = shlex.split(text)
    except ValueError as error:  # nothing in it, or a quote that is not closed
        raise ValueError(f"{text!r} names no config: {HOW}") from error
    label, _, path = first.rpartition("=")
    try:
        config_file = find_config(path)
    except ConfigFileError as error:
        raise ValueError(f"{text!r}: {error} ({HOW})") from None
    label = label or config_file.stem
    if label.startswith(".") or "/" in label:
        raise ValueError(f"{text!r}: the label {label!r} names a folder: no slash, no leading dot")
    return Contender(label, config_file, tuple(overrides))


def parse_contenders(texts: Sequence[str]) -> list[Contender]:
    """All of them.

    Raises:
        ValueError: as :func:`parse_contender`, or two have the same label.
    """
    contenders = [parse_contender(text) for text in texts]
    labels = [contender.label for contender in contenders]
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(f"two contenders are called {label!r}: give them a LABEL=")
    return contenders
