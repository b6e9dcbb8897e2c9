"""Check data sets, records and boxes before training starts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from logging import ERROR, INFO, WARNING
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager

from retina_plugin.data.band_files import BandReader
from retina_plugin.data.coco_file import read_coco_file
from retina_plugin.data.decoders import build_decoder
from retina_plugin.data.findings import CLEAN, Finding, Findings
from retina_plugin.data.image_files import ImageFiles, check_image_files
from retina_plugin.registry import unknown_name

CROWD = "crowd"
MIN_SIDE = 1e-5  # pixels; Detectron2's filter_empty_instances drops what is not longer

Record = dict[str, Any]


class Kind(NamedTuple):
    """A kind of unusual box: log level, description, and its effect in each split."""

    level: int
    what: str
    in_training: str
    in_evaluation: str
    fix: str = ""


@dataclass
class CheckedSet:
    """A data set that was checked.

    Attributes:
        name: its name in ``DatasetCatalog``.
        splits: the splits that use it, ``TRAIN`` or ``TEST`` or both.
        records: its records in Detectron2's format.
        files: the results of reading its image files; empty if ``DATASETS.CHECK_FILES`` is False.
    """

    name: str
    splits: list[str]
    records: list[Record]
    files: ImageFiles


BOX_KINDS = {
    "malformed": Kind(
        ERROR, "boxes that are not 4 finite numbers", *["Correct or remove these boxes."] * 2
    ),
    "mode": Kind(
        ERROR, "boxes whose bbox_mode is not XYXY_ABS or XYWH_ABS", *["Convert these boxes."] * 2
    ),
    "class": Kind(
        ERROR,
        "boxes whose category_id is not from 0 to MODEL.RETINANET.NUM_CLASSES - 1",
        *["Correct NUM_CLASSES, or the data."] * 2,
    ),
    # Detectron2 keeps these: its transforms sort the corners, which makes a valid box of them.
    "negative": Kind(
        ERROR,
        "boxes of negative width or height",
        *["Is the order of the numbers wrong, or the box mode? Correct or remove them."] * 2,
    ),
    "degenerate": Kind(
        WARNING,
        "boxes without width or height",
        "They are ignored in training.",
        "They count as objects that no detection can match.",
        CLEAN,
    ),
    "outside": Kind(
        WARNING,
        "boxes wholly outside their image",
        "They are ignored in training.",
        "They count as objects that no detection can match.",
        CLEAN,
    ),
    CROWD: Kind(
        INFO,
        "crowd boxes",
        "They are ignored in training, and the area that they cover is trained as background.",
        "Detections in them count neither as true nor as false positives.",
        "INPUT.IGNORE_CROWD=True",
    ),
}


def check_datasets(cfg: CfgNode, *, train: bool) -> list[Finding]:
    """Check the data sets for training and evaluation; log warnings and information.

    Args:
        cfg: the config after ``register_datasets``. If ``DATASETS.CHECK_FILES`` is False, image
            files are not opened.
        train: check ``DATASETS.TRAIN`` as well as ``DATASETS.TEST``.

    Returns:
        All findings.

    Raises:
        DataError: if there are errors; lists all of them with the first few examples of each.
        UnknownNameError, ValueError, ImportError: see :func:`find_problems`.
    """
    findings = Findings()
    find_problems(cfg, findings, train=train)
    findings.log()
    findings.raise_errors()
    return list(findings)


def find_problems(cfg: CfgNode, findings: Findings, *, train: bool) -> list[CheckedSet]:
    """Add the findings of :func:`check_datasets` to ``findings`` without logging or raising.

    Returns:
        The data sets that could be loaded, for further checks.

    Raises:
        UnknownNameError, ValueError, ImportError: if the decoder cannot be built, see
            ``build_decoder``, or a package that the image files need is not installed.
    """
    splits = ("TRAIN", "TEST") if train else ("TEST",)
    uses: dict[str, list[str]] = {}
    for split in splits:
        for name in cfg.DATASETS[split]:
            uses.setdefault(name, []).append(split)
    if not cfg.DATASETS[splits[0]]:
        key = f"DATASETS.{splits[0]}"
        advice = f"Set DATASETS.COCO.{splits[0]}.JSON and IMAGES, or the name of a data set."
        findings.add(ERROR, key, "names no data set", advice)
    decoder = build_decoder(cfg)
    bands = decoder if isinstance(decoder, BandReader) else None
    usable = 0
    checked = []
    for name, of_splits in uses.items():
        records = _load(name, of_splits, findings)
        if records is None:
            continue
        for split in of_splits:
            where = f"DATASETS.{split} '{name}'"
            _check_classes(name, where, cfg, findings)
            images = _check_records(records, where, split, cfg, findings)
            usable += images if split == "TRAIN" else 0
        files = ImageFiles()
        if cfg.DATASETS.get("CHECK_FILES", True):
            files = check_image_files(records, f"data set '{name}'", findings, bands)
        checked.append(CheckedSet(name, of_splits, records, files))
    unknown = len(checked) < len(uses)
    if train and not (usable or unknown or findings.has_errors()):
        advice = "A usable box is no crowd, has a positive size and overlaps its image."
        what = f"no image of {', '.join(cfg.DATASETS.TRAIN)} has a usable box"
        findings.add(ERROR, "DATASETS.TRAIN", what, advice)
    return checked


def _load(name: str, splits: list[str], findings: Findings) -> list[Record] | None:
    """Load the data set's records; None if that fails or they are not a list."""
    where = f"DATASETS.{splits[0]}"
    if name not in DatasetCatalog:
        findings.add(ERROR, where, str(unknown_name("data set", name, DatasetCatalog)))
        return None
    meta = MetadataCatalog.get(name)
    json_file = meta.get("json_file")
    if meta.get("evaluator_type") == "coco" and json_file:
        content = read_coco_file(Path(PathManager.get_local_path(json_file)))
        for split in splits:
            findings.extend(content.findings[split], f"DATASETS.{split} '{name}'")
        if any(x.level >= ERROR for split in splits for x in content.findings[split]):
            return None
    try:
        records = DatasetCatalog.get(name)
    except (OSError, ImportError) as error:  # others are a bug that needs its traceback
        what = f"'{name}' cannot be loaded: {type(error).__name__}: {error}"
        advice = "Detectron2's built-in data sets are read from $DETECTRON2_DATASETS."
        findings.add(ERROR, where, what, advice)
        return None
    if not isinstance(records, list):
        findings.add(
            INFO, where, f"'{name}' is not a list but {type(records).__name__}: not checked"
        )
        return None
    if not records:
        findings.add(ERROR, where, f"'{name}' has no images", "Check that it is the right file.")
        return None
    return records


def _check_classes(name: str, where: str, cfg: CfgNode, findings: Findings) -> None:
    names = MetadataCatalog.get(name).get("thing_classes") or []
    num_classes = cfg.MODEL.RETINANET.NUM_CLASSES
    if len(names) > num_classes:
        what = f"has {len(names)} classes, but MODEL.RETINANET.NUM_CLASSES is {num_classes}"
        findings.add(ERROR, where, what, f"Set it to {len(names)}.")


def _check_records(
    records: list[Record], where: str, split: str, cfg: CfgNode, findings: Findings
) -> int:
    """Check the boxes of all images; return the number of images with a usable box."""
    usable = 0
    train = split == "TRAIN"
    without_key = "images without 'annotations' (use an empty list for an image without objects)"
    if not train:
        empty_advice = "All detections in them are false positives."
    elif cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
        empty_advice = "They are skipped in training (DATALOADER.FILTER_EMPTY_ANNOTATIONS is True)."
    else:
        empty_advice = "They are background in training (FILTER_EMPTY_ANNOTATIONS is False)."
    for record in records:
        image = f"image {record.get('image_id')} ({record.get('file_name')})"
        if train and "annotations" not in record:
            findings.add(ERROR, where, without_key, "Use a data set with boxes.", image)
        annotations = record.get("annotations", ())
        kinds = [kind_of_box(x, record, cfg.MODEL.RETINANET.NUM_CLASSES) for x in annotations]
        for index, name in enumerate(kinds):
            if name is not None:
                kind = _kind(name, cfg)
                box, of_class = (annotations[index].get(x) for x in ("bbox", "category_id"))
                example = f"box {index + 1} of {image}: {_plain(box)}, category_id {of_class}"
                advice = kind.in_training if train else kind.in_evaluation
                if kind.fix == CLEAN:  # their effect is the reason to fix them
                    findings.add(kind.level, where, kind.what, "", example, why=advice, fix=CLEAN)
                else:
                    fix = kind.fix if train else ""
                    findings.add(kind.level, where, kind.what, advice, example, fix=fix)
        if None in kinds:
            usable += 1
        elif all(x.get("iscrowd", 0) for x in annotations):
            findings.add(INFO, where, "images without boxes", empty_advice, image)
    if not train and not usable:
        advice = "AP will be NaN or not computed."
        findings.add(WARNING, where, "no image has a ground-truth box", advice)
    return usable


def _kind(name: str, cfg: CfgNode) -> Kind:
    """The entry of ``BOX_KINDS``; for crowds it depends on ``INPUT.IGNORE_CROWD``."""
    if name != CROWD or not cfg.INPUT.get("IGNORE_CROWD", False):
        return BOX_KINDS[name]
    text = "They and the area that they cover are ignored in training (INPUT.IGNORE_CROWD is True)."
    return BOX_KINDS[name]._replace(in_training=text, fix="")


def kind_of_box(annotation: dict[str, Any], record: Record, num_classes: int) -> str | None:
    """The key of a box in ``BOX_KINDS``, or None for an ordinary box."""
    try:
        x0, y0, x1, y1 = (float(x) for x in annotation["bbox"])
    except (KeyError, TypeError, ValueError):
        return "malformed"
    if not math.isfinite(x0 + y0 + x1 + y1):
        return "malformed"
    mode = annotation.get("bbox_mode")
    if mode == BoxMode.XYWH_ABS:
        x1, y1 = x0 + x1, y0 + y1
    elif mode != BoxMode.XYXY_ABS:
        return "mode"
    if annotation.get("iscrowd", 0):
        return CROWD
    if annotation.get("category_id") not in range(num_classes):
        return "class"
    if x1 < x0 or y1 < y0:
        return "negative"
    if x1 - x0 <= MIN_SIDE or y1 - y0 <= MIN_SIDE:
        return "degenerate"
    width = min(x1, record.get("width", math.inf)) - max(x0, 0)
    height = min(y1, record.get("height", math.inf)) - max(y0, 0)
    return "outside" if width <= MIN_SIDE or height <= MIN_SIDE else None


def _plain(box: Any) -> Any:
    """Return a box in a form that prints well."""
    return list(box) if isinstance(box, tuple) else getattr(box, "tolist", lambda: box)()
