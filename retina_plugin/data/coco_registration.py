"""Register the data sets in COCO format that the config declares in ``DATASETS.COCO``."""

from __future__ import annotations

import logging
from functools import partial
from logging import ERROR
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

from retina_plugin.data.coco_file import SPLITS, CocoFile, read_coco_file
from retina_plugin.data.coco_places import as_tuple, located
from retina_plugin.data.coco_records import ExtraKeys, load_coco_records
from retina_plugin.data.findings import CLEAN, Findings

KEY = "DATASETS.COCO"
NUM_CLASSES = "MODEL.RETINANET.NUM_CLASSES"

logger = logging.getLogger(__name__)


class Declared(NamedTuple):
    """A data set that the config declares."""

    key: str
    name: str
    json: Path
    images: Path
    content: CocoFile


class Classes(NamedTuple):
    """The class names from one source.

    ``exact``: NUM_CLASSES must equal their number; for Detectron2's metadata it may be larger.
    """

    source: str
    names: tuple[str, ...]
    exact: bool


def register_datasets(cfg: CfgNode, disagreements: Findings | None = None) -> None:
    """Register the data sets of ``DATASETS.COCO`` and determine the number of classes.

    * Each json is registered with Detectron2 under its ``NAME`` (default: the file's stem), and
      ``DATASETS.TRAIN`` / ``TEST`` are set to these names, unless they already list one of them.
    * Training sets keep ``EXTRA_IMAGE_KEYS`` and ``DATALOADER.GROUP_FIELD`` of the json's images
      and ``EXTRA_ANNOTATION_KEYS`` of its annotations.
    * ``MODEL.RETINANET.NUM_CLASSES`` is checked. If it is None, it is set to the number of classes
      in the jsons, else in the data sets' metadata, else to Detectron2's default.

    Call it in every process before the data are read. Calling it twice is harmless.

    Args:
        cfg: a config that is not frozen; changed in place. Without ``DATASETS.COCO`` only the
            number of classes is determined.
        disagreements: if given, errors about classes are added here instead of raised.

    Raises:
        DataError: lists every mistake in the keys and jsons; ``cfg`` is then unchanged.
    """
    coco = cfg.DATASETS.get("COCO") or {}
    findings = Findings()
    declared = {split: _declare(coco.get(split) or {}, split, findings) for split in SPLITS}
    _check_names([x for split in SPLITS for x in declared[split]], findings)
    findings.raise_errors()

    chosen = {split: _choose(cfg, split, declared[split]) for split in SPLITS}
    known = {x.name: x for split in SPLITS for x in declared[split]}
    sources = [_classes_of(name, known) for split in SPLITS for name in chosen[split]]
    class_names = tuple(map(str, as_tuple(coco.get("CLASS_NAMES"))))
    if class_names:
        sources.insert(0, Classes(f"{KEY}.CLASS_NAMES", class_names, exact=True))
    classes = list(dict.fromkeys(source for source in sources if source is not None))
    num_classes = cfg.MODEL.RETINANET.NUM_CLASSES
    _check_classes(classes, num_classes, findings)
    if disagreements is None:
        findings.raise_errors()
    else:
        disagreements.extend(findings)

    trained_on = {x.name for x in declared["TRAIN"]}
    extra = _extra_keys(cfg)
    for dataset in known.values():
        _register(dataset, extra if dataset.name in trained_on else ExtraKeys())
    for split, names in chosen.items():
        if cfg.DATASETS[split] != names:
            setattr(cfg.DATASETS, split, names)  # unlike an item, refused by a frozen config
    if num_classes is None:
        cfg.MODEL.RETINANET.NUM_CLASSES = _num_classes(classes)


def _declare(node: dict[str, Any], split: str, findings: Findings) -> list[Declared]:
    """Read and check the data sets of ``DATASETS.COCO.<split>``."""
    node = {key: as_tuple(value) for key, value in node.items()}
    names, jsons, images = (node.get(key, ()) for key in ("NAME", "JSON", "IMAGES"))
    lengths = f"got {len(names)} NAME, {len(jsons)} JSON, {len(images)} IMAGES"
    where = f"{KEY}.{split}"
    for key, values in node.items():
        for value in values:
            if not isinstance(value, str | Path):
                what = f"takes a string or a list of strings; got {value!r}"
                findings.add(ERROR, f"{where}.{key}", what, "Put it in quotes.")
                return []
    if bool(jsons) != bool(images) or (names and not jsons):
        advice = f"Set {where}.JSON to the annotations and {where}.IMAGES to the image folder."
        findings.add(ERROR, where, f"needs JSON and IMAGES together; {lengths}", advice)
        return []
    if len(images) not in (1, len(jsons)) or len(names) not in (0, len(jsons)):
        what = f"needs one NAME (or none) and one IMAGES (or one for all) for each JSON; {lengths}"
        findings.add(ERROR, where, what, "Make the lists equally long.")
        return []
    if not jsons:
        return []
    paths = [located(value) for value in jsons]
    folders = [located(value) for value in images]
    folders *= len(jsons) // len(folders)
    names = [str(name) for name in names] or [path.stem for path in paths]
    for folder in dict.fromkeys(folders):
        if not folder.is_dir():
            what = f"'{folder}' is not a folder ({folder.absolute()})"
            findings.add(ERROR, f"{where}.IMAGES", what, "Give the folder of the images.")
    declared = []
    for name, path, folder in zip(names, paths, folders, strict=True):
        content = read_coco_file(path)
        findings.extend(content.findings[split], f"{where}.JSON")
        declared.append(Declared(where, name, path, folder, content))
    return declared


def _check_names(declared: list[Declared], findings: Findings) -> None:
    """A name must denote one data set, here and in Detectron2's catalog."""
    first: dict[str, Declared] = {}
    for dataset in declared:
        other = first.setdefault(dataset.name, dataset)
        new = f"json {dataset.json}, images {dataset.images}"
        advice = f"Choose another {dataset.key}.NAME."
        if _place(dataset.json, dataset.images) != _place(other.json, other.images):
            what = f"the name '{dataset.name}' denotes {new} and, in {other.key}, json "
            what += f"{other.json}, images {other.images}"
            findings.add(ERROR, dataset.key, what, advice)
        elif dataset.name in DatasetCatalog:
            meta = MetadataCatalog.get(dataset.name)
            old = (meta.get("json_file"), meta.get("image_root"))
            if None in old or _place(*old) != _place(dataset.json, dataset.images):
                what = f"the name '{dataset.name}' for {new} is taken: it is registered with "
                what += f"json {old[0]}, images {old[1]}"
                findings.add(ERROR, dataset.key, what, advice)


def _place(*paths: str | Path) -> list[Path]:
    return [Path(path).expanduser().resolve() for path in paths]


def _choose(cfg: CfgNode, split: str, declared: list[Declared]) -> tuple[str, ...]:
    """The new value of ``DATASETS.<split>``."""
    listed = as_tuple(cfg.DATASETS[split])
    names = tuple(dict.fromkeys(dataset.name for dataset in declared))
    if not names:
        return listed
    if set(names) & set(listed):
        unused = [name for name in names if name not in listed]
        if unused:
            logger.warning(f"{KEY}.{split}: {unused} registered, but not in DATASETS.{split}.")
        return listed
    if listed:
        logger.info(f"DATASETS.{split} is {names} of {KEY}.{split} instead of {listed}.")
    return names


def _classes_of(name: str, declared: dict[str, Declared]) -> Classes | None:
    """A data set's class names, from its metadata if possible, without loading annotations."""
    if name in declared:
        dataset = declared[name]
        return Classes(f"{dataset.json} ({dataset.key}.JSON)", dataset.content.class_names, True)
    meta = MetadataCatalog.get(name) if name in MetadataCatalog else {}
    names, json_file = meta.get("thing_classes"), meta.get("json_file")
    if names is None and meta.get("evaluator_type") == "coco" and Path(str(json_file)).is_file():
        names = read_coco_file(Path(json_file)).class_names
        return Classes(f"{json_file} (data set '{name}')", names, True) if names else None
    return Classes(f"the metadata of '{name}'", tuple(names), False) if names else None


def _check_classes(classes: list[Classes], num_classes: int | None, findings: Findings) -> None:
    """All sources must name the same classes in the same order, and as many as NUM_CLASSES."""
    for other in classes[1:]:
        first = classes[0]
        if other.names != first.names:
            what = f"names {_describe(other.names)}, but {first.source} {_describe(first.names)}: "
            what += _difference(other.names, first.names)
            advice = (
                "Both must have the same classes in the order of the category ids. If you did not "
                "mean to evaluate on this DATASETS.TEST, set it to ()."
            )
            same = other.exact and first.exact and sorted(other.names) == sorted(first.names)
            why = "Objects are trained as one class and evaluated as another." if same else ""
            fix = CLEAN if same and first.source != f"{KEY}.CLASS_NAMES" else ""
            findings.add(ERROR, other.source, what, advice, why=why, fix=fix)
    if num_classes is None:
        return
    for source in classes:
        found = len(source.names)
        if num_classes < found or (source.exact and num_classes != found):
            what = f"is {num_classes}, but {source.source} has {_describe(source.names)}"
            advice = f"Set it to {found}, or to None to take it from the data."
            fix = f"{NUM_CLASSES}={found}"
            findings.add(ERROR, NUM_CLASSES, what, advice, fix=fix)
            return


def _describe(names: tuple[str, ...]) -> str:
    more = ", ..." if len(names) > 5 else ""
    return f"{len(names)} class{'es' * (len(names) != 1)} ({', '.join(names[:5])}{more})"


def _difference(names: tuple[str, ...], others: tuple[str, ...]) -> str:
    only = [name for name in names if name not in others]
    lacking = [name for name in others if name not in names]
    parts = [
        f"{text} {', '.join(differing[:5])}{', ...' if len(differing) > 5 else ''}"
        for text, differing in (("only the former has", only), ("only the latter has", lacking))
        if differing
    ]
    if parts:
        return " and ".join(parts)
    index = next(i for i, (a, b) in enumerate(zip(names, others, strict=False)) if a != b)
    return f"another order, class {index} is {names[index]} and {others[index]}"


def _extra_keys(cfg: CfgNode) -> ExtraKeys:
    """The additional keys of images and annotations that the config asks for."""
    coco = cfg.DATASETS.get("COCO") or {}
    images = [*as_tuple(coco.get("EXTRA_IMAGE_KEYS")), cfg.DATALOADER.get("GROUP_FIELD", "")]
    annotations = as_tuple(coco.get("EXTRA_ANNOTATION_KEYS"))
    return ExtraKeys(tuple(dict.fromkeys(filter(None, images))), annotations)


def _register(dataset: Declared, extra: ExtraKeys) -> None:
    """Register with Detectron2; its metadata has the classes before annotations are loaded."""
    metadata = {
        "thing_classes": list(dataset.content.class_names),
        "thing_dataset_id_to_contiguous_id": dataset.content.class_ids,
    }
    if dataset.name in DatasetCatalog:
        old = MetadataCatalog.get(dataset.name)
        same = all(old.get(key) in (None, value) for key, value in metadata.items())
        if same and old.get("extra_keys", ExtraKeys()) == extra:
            return
        # The json or the keys changed (in a notebook, say), and metadata cannot be overwritten.
        DatasetCatalog.remove(dataset.name)
        MetadataCatalog.remove(dataset.name)
    register_coco_instances(dataset.name, metadata, str(dataset.json), str(dataset.images))
    if any(extra):
        DatasetCatalog.remove(dataset.name)
        load = partial(load_coco_records, dataset.json, dataset.images, dataset.name, extra)
        DatasetCatalog.register(dataset.name, load)
        MetadataCatalog.get(dataset.name).extra_keys = extra
    logger.info(f"{dataset.key}: registered '{dataset.name}' from {dataset.json}.")


def _num_classes(classes: list[Classes]) -> int:
    if classes:
        logger.info(f"{NUM_CLASSES}: {len(classes[0].names)}, from {classes[0].source}.")
        return len(classes[0].names)
    default = get_cfg().MODEL.RETINANET.NUM_CLASSES
    logger.warning(
        f"{NUM_CLASSES}: {default}, Detectron2's default, since the class names of the data are "
        "unknown. Set it if the data have another number of classes."
    )
    return default
