"""The two data sets that installed packages hold, ready for a config."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from retina_plugin.data.coco_json import SplitPaths


class ExampleData(NamedTuple):
    """How a data set is made, and the splits to test on with their descriptions."""

    prepare: Callable[[Path], dict[str, SplitPaths]]
    tests: dict[str, str]


def _prepare_crowns(folder: Path) -> dict[str, SplitPaths]:
    from retina_plugin.data.crowns import prepare_crowns

    return prepare_crowns(folder)


def _prepare_digits(folder: Path) -> dict[str, SplitPaths]:
    from retina_plugin.data.digits import prepare_digits

    return prepare_digits(folder)


# The functions import what they need: the names below are choices of the command line's help.
EXAMPLES = {
    "crowns": ExampleData(
        _prepare_crowns,
        {
            "val": "validation strip of YELL_528 (tuned on)",
            "yell_541": "YELL_541 (test: same site, other photograph)",
            "osbs_029": "OSBS_029 (test: other site)",
        },
    ),
    "digits": ExampleData(_prepare_digits, {"val": "validation images"}),
}


def default_folder(name: str) -> Path:
    """Where Detectron2 looks for the data set ``name``."""
    return Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser() / name


def data_overrides(name: str, paths: dict[str, SplitPaths], tests: list[str]) -> list[str]:
    """Overrides that make a config train on the example and evaluate on the splits ``tests``."""
    train, chosen = paths["train"], [paths[test] for test in tests]
    values = {
        "TRAIN.NAME": f"{name}_train",
        "TRAIN.JSON": str(train.json),
        "TRAIN.IMAGES": str(train.images),
        "TEST.NAME": [f"{name}_{test}" for test in tests],
        "TEST.JSON": [str(path.json) for path in chosen],
        "TEST.IMAGES": [str(path.images) for path in chosen],
    }
    return [part for key, value in values.items() for part in (f"DATASETS.COCO.{key}", str(value))]


def example_overrides(name: str) -> list[str]:
    """:func:`data_overrides` of an example in its default folder, made where it is not there."""
    example = EXAMPLES[name]
    paths = example.prepare(default_folder(name).resolve())
    return data_overrides(name, paths, list(example.tests))
