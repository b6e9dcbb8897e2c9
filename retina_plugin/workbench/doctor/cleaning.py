"""A copy of the data sets' jsons without what the doctor found wrong in them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode

from retina_plugin.config.config_file import parse_overrides
from retina_plugin.data.checks import BOX_KINDS, CheckedSet, kind_of_box
from retina_plugin.data.coco_json import write_json
from retina_plugin.data.findings import CLEAN
from retina_plugin.runs.lazy_keys import home_of
from retina_plugin.runs.lazy_settings import split_overrides, value_of
from retina_plugin.runs.load_run import is_lazy
from retina_plugin.workbench.doctor.boxes import repeated
from retina_plugin.workbench.doctor.doctor import Diagnosis

YAML, LAZY = "clean.yaml", "clean.py"
DROPPED = [name for name, kind in BOX_KINDS.items() if kind.fix == CLEAN]


class Cleaned(NamedTuple):
    """What was written: the config that names the jsons, and a line for each json."""

    config: Path
    lines: list[str]


def write_clean(
    diagnosis: Diagnosis, cfg: CfgNode, folder: Path, *, base: Path, overrides: Sequence[str] = ()
) -> Cleaned:
    """Write a json for each COCO data set of the config, and a config that trains on them.

    Left out are images whose files are missing or cannot be read, images to train on that are
    evaluated on too (the evaluation stays what it was), boxes wholly outside their image or without
    area, and boxes that are there twice. Images that are listed twice become one with the boxes of
    both. Category ids become those of the first json that is trained on, by the classes' names.

    Args:
        diagnosis: of ``diagnose``.
        cfg: of which it is.
        folder: gets ``<data set>.json`` and ``clean.yaml``, of a LazyConfig ``clean.py``.
        base: the config's file.
        overrides: that the user gave beside it: they go into the config.

    Raises:
        ValueError: a file is there already, or cannot be written; or no data set is a COCO json.
    """
    sets = [(x, _json_of(x)) for x in diagnosis.sets if _json_of(x) is not None]
    if not sets:
        raise ValueError("no data set of the config is a COCO json that could be read: see above")
    targets = {x.name: folder / f"{x.name}.json" for x, _ in sets}
    config = folder / (LAZY if is_lazy(base) else YAML)
    for path in (*targets.values(), config):
        if path.exists():
            raise ValueError(f"{path} exists, and is not overwritten: name another folder")
    leaked = {Path(record["file_name"]) for record in diagnosis.leaked}
    categories: list[dict[str, Any]] = []
    lines = []
    for checked, path in sets:
        content = json.loads(path.read_text(encoding="utf-8"))
        categories = categories or content["categories"]
        lost = set(map(Path, checked.files.lost))
        done = _clean(
            content,
            Path(MetadataCatalog.get(checked.name).image_root),
            lost=lost,
            leaked=leaked if checked.splits == ["TRAIN"] else set(),
            categories=categories,
        )
        _write(targets[checked.name], content)
        lines.append(f"{targets[checked.name]}  {_in_words(done)}")
    own, upper = split_overrides(overrides) if is_lazy(base) else ([], overrides)
    values = _settings(cfg, sets, targets, [key for key, _ in parse_overrides(upper)])
    text = _as_python(base, values, own) if is_lazy(base) else _as_yaml(base, values)
    config.write_text(f"# {base}, on data that retina doctor cleaned.\n{text}", encoding="utf-8")
    return Cleaned(config, [*lines, f"{config}  {base} with these jsons"])


def _json_of(checked: CheckedSet) -> Path | None:
    meta = MetadataCatalog.get(checked.name)
    path = meta.get("json_file") if meta.get("evaluator_type") == "coco" else None
    return Path(path) if path else None


def _clean(
    content: dict[str, Any],
    root: Path,
    *,
    lost: set[Path],
    leaked: set[Path],
    categories: list[dict[str, Any]],
) -> Counter[str]:
    """Change the content of a json; returns what was done how often."""
    done: Counter[str] = Counter()
    first: dict[Path, Any] = {}
    other_id = {}
    images = []
    for image in content["images"]:
        path = root / image["file_name"]
        if path in lost:
            done["images without a readable file left out"] += 1
        elif path in leaked:
            done["images of the test set left out"] += 1
        elif path in first:
            other_id[image["id"]] = first[path]
            done["images listed twice joined"] += 1
        else:
            first[path] = other_id[image["id"]] = image["id"]
            images.append(image)
    content["images"] = images
    by_image: dict[Any, list[dict[str, Any]]] = {image["id"]: [] for image in images}
    for annotation in content["annotations"]:
        if annotation["image_id"] in other_id:
            annotation["image_id"] = other_id[annotation["image_id"]]
            by_image[annotation["image_id"]].append(annotation)
    _renumber(content, categories, done)
    content["annotations"] = [
        x for image in images for x in _kept(by_image[image["id"]], image, done)
    ]
    return done


def _kept(
    annotations: list[dict[str, Any]], image: dict[str, Any], done: Counter[str]
) -> Iterable[dict[str, Any]]:
    twice = set(repeated(annotations))
    for index, annotation in enumerate(annotations):
        plain = {**annotation, "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
        kind = kind_of_box(plain, image, num_classes=1)
        if kind in DROPPED:
            done[f"{BOX_KINDS[kind].what} left out"] += 1
        elif index in twice:
            done["boxes that are there twice left out"] += 1
        else:
            yield annotation


def _renumber(
    content: dict[str, Any], categories: list[dict[str, Any]], done: Counter[str]
) -> None:
    """Give categories the ids that those of the same names have in the first json."""
    wanted = {x["name"]: x["id"] for x in categories}
    names = {x["id"]: x["name"] for x in content["categories"]}
    if wanted.keys() != set(names.values()):
        return  # other classes: nobody knows which are meant
    changed = {old: wanted[name] for old, name in names.items() if wanted[name] != old}
    if not changed:
        return
    done["category ids changed"] = len(changed)
    for annotation in content["annotations"]:
        annotation["category_id"] = changed.get(
            annotation["category_id"], annotation["category_id"]
        )
    content["categories"] = categories


def _write(path: Path, content: dict[str, Any]) -> None:
    try:
        write_json(path, content)
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error}") from error


def _in_words(done: Counter[str]) -> str:
    return ", ".join(f"{what}: {count}" for what, count in done.items()) or "nothing to clean"


def _settings(
    cfg: CfgNode,
    sets: Sequence[tuple[CheckedSet, Path]],
    targets: dict[str, Path],
    keys: Sequence[str],
) -> dict[str, Any]:
    """The dotted keys of the new config, with their values."""
    values: dict[str, Any] = {}
    for key in keys:
        if not key.startswith(("DATASETS.TRAIN", "DATASETS.TEST", "DATASETS.COCO.T")):
            value = value_of(cfg, key)
            values[key] = list(value) if isinstance(value, tuple) else value
    for split in ("TRAIN", "TEST"):
        chosen = [x for x, _ in sets if split in x.splits]
        if chosen:
            node = f"DATASETS.COCO.{split}"
            values[f"{node}.NAME"] = [f"{x.name}_clean" for x in chosen]
            values[f"{node}.JSON"] = [str(targets[x.name]) for x in chosen]
            roots = [str(MetadataCatalog.get(x.name).image_root) for x in chosen]
            values[f"{node}.IMAGES"] = roots
    return values


def _as_yaml(base: Path, settings: dict[str, Any]) -> str:
    values: dict[str, Any] = {"_BASE_": str(base.resolve())}
    for key, value in settings.items():
        *groups, last = key.split(".")
        node = values
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = value
    return yaml.safe_dump({**values, "VERSION": 2}, sort_keys=False)


def _as_python(base: Path, settings: dict[str, Any], overrides: Sequence[str]) -> str:
    """A LazyConfig with all of ``base``, overrides and further ``train.settings``."""
    free = {key: value for key, value in settings.items() if not home_of(key)}
    homes = {home_of(key): value for key, value in settings.items() if home_of(key)}
    return "\n".join(
        [
            "from detectron2.config import LazyConfig",
            "from omegaconf import OmegaConf",
            "",
            f"base = LazyConfig.load({str(base.resolve())!r})",
            f"LazyConfig.apply_overrides(base, {list(overrides)!r})",
            *(f"OmegaConf.update(base, {key!r}, {value!r})" for key, value in homes.items()),
            'base.train.settings = {**base.train.get("settings", {}), **{',
            *(f"    {key!r}: {value!r}," for key, value in free.items()),
            "}}",
            "globals().update(base.items())  # model, dataloader, optimizer, lr_multiplier, train",
            "del base",
            "",
        ]
    )
