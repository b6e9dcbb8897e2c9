"""Images that are both trained and evaluated on, by what is in the files."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from logging import INFO, WARNING
from typing import Any

import numpy as np
from detectron2.utils.file_io import PathManager
from PIL import Image, ImageOps

from retina_plugin.data.checks import CheckedSet
from retina_plugin.data.findings import CLEAN, Findings
from retina_plugin.data.image_files import THREADS

PROBE = 4096  # bytes that are compared first
MAX_DECODED = 20_000_000  # pixels, some two seconds

Record = dict[str, Any]
Pair = tuple[Record, Record]
Key = Callable[[Sequence[Record]], Iterable[Any]]  # one value a record; None for unknown


def check_leaks(sets: Sequence[CheckedSet], findings: Findings) -> list[Record]:
    """Name images that are evaluated on and trained on too, and those listed twice in a set.

    Two files are the same where all their bytes are: files of equal size are compared by a few
    kilobytes first, and in full only if those agree. Of small data sets the pixels are compared
    too, of images of equal size: a copy that was saved anew, without loss, has them.

    Returns:
        The records to train on that are evaluated on as well.
    """
    for checked in sets:
        _check_listed_twice(checked, findings)
    both = [x for x in sets if len(x.splits) > 1]
    for checked in both:
        where = f"DATASETS.TRAIN '{checked.name}'"
        why = "AP on images that are learnt by heart says nothing about others."
        advice = "Name images in DATASETS.COCO.TEST that are not trained on."
        findings.add(WARNING, where, "is in DATASETS.TEST too", advice, why=why)
    train = [x for x in sets if x.splits == ["TRAIN"]]
    test = [x for x in sets if x.splits == ["TEST"]]
    pairs = shared_images(train, test, findings)
    where = ", ".join(f"'{x.name}'" for x in test)
    for learnt, measured in pairs:
        same = learnt["file_name"] == measured["file_name"]
        example = f"image {measured.get('image_id')} ({measured['file_name']})"
        example += "" if same else f" is {learnt['file_name']}"
        what = f"images of DATASETS.TEST {where} that are trained on too"
        why = "They are learnt by heart: the AP is too good."
        findings.add(WARNING, "DATASETS.TRAIN", what, "", example, why=why, fix=CLEAN)
    return [learnt for learnt, _ in pairs]


def shared_images(
    train: Sequence[CheckedSet], test: Sequence[CheckedSet], findings: Findings
) -> list[Pair]:
    """Records to train on, each with one to evaluate on of the same content."""
    learnt, measured = _by_path(train), _by_path(test)
    pairs = [(learnt[path], measured[path]) for path in learnt if path in measured]
    known = {id(x) for pair in pairs for x in pair}
    sizes = {path: size for x in (*train, *test) for path, size in x.files.bytes.items()}
    left = [
        [x for x in records.values() if id(x) not in known and x["file_name"] in sizes]
        for records in (learnt, measured)
    ]
    keys: list[Key] = [
        lambda records: (sizes[x["file_name"]] for x in records),
        _reading(lambda path: _hash(path, sizes[path], PROBE)),
        _reading(lambda path: _hash(path, sizes[path])),
    ]
    pairs += _equal(*left, keys)
    known = {id(x) for pair in pairs for x in pair}
    left = [[x for x in records if id(x) not in known] for records in left]
    return pairs + _same_pixels(*left, findings)


def _same_pixels(learnt: list[Record], measured: list[Record], findings: Findings) -> list[Pair]:
    groups = _groups(learnt, measured, _shapes)
    pixels = sum(len(x) * width * height for (width, height), group in groups for x in group)
    if pixels > MAX_DECODED:
        count = sum(len(x) for _, group in groups for x in group)
        what = f"{count} images of equal size were compared by their files' bytes, not their pixels"
        findings.add(INFO, "DATASETS", what, "Copies that were saved anew are not found.")
        return []
    return _equal(learnt, measured, [_shapes, _reading(_pixels)])


def _equal(learnt: Sequence[Record], measured: Sequence[Record], keys: Sequence[Key]) -> list[Pair]:
    """Pairs for which every key is equal; a later one is only asked of what the earlier leave."""
    groups = [(None, (list(learnt), list(measured)))]
    for key in keys:
        groups = [x for _, (a, b) in groups for x in _groups(a, b, key)]
    return [(x, b[0]) for _, (a, b) in groups for x in a]


def _groups(
    learnt: Sequence[Record], measured: Sequence[Record], key: Key
) -> list[tuple[Any, tuple[list[Record], list[Record]]]]:
    """Records of both kinds by their key; those whose key is None, or only one kind's, are gone."""
    found: dict[Any, tuple[list[Record], list[Record]]] = defaultdict(lambda: ([], []))
    for kind, records in enumerate((learnt, measured)):
        for value, record in zip(key(records), records, strict=True):
            found[value][kind].append(record)
    return [(k, group) for k, group in found.items() if k is not None and all(group)]


def _reading(of_file: Callable[[str], Any]) -> Key:
    """A key that waits for the disk."""

    def key(records: Sequence[Record]) -> list[Any]:
        if len(records) < THREADS:  # most groups are a pair: not worth a thread
            return [of_file(x["file_name"]) for x in records]
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(of_file, [x["file_name"] for x in records]))

    return key


def _hash(path: str, size: int, length: int | None = None) -> bytes | None:
    """Of ``length`` bytes of the middle, where files of one size differ most, or of all."""
    try:
        with PathManager.open(path, "rb") as file:
            if length is not None:
                file.seek(max(0, size // 2 - length // 2))
            return hashlib.blake2b(file.read(length)).digest()
    except OSError:
        return None


def _pixels(path: str) -> bytes | None:
    try:
        with PathManager.open(path, "rb") as file:
            image = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
            return hashlib.blake2b(np.asarray(image).tobytes()).digest()
    except Exception:  # npy, or what Pillow cannot read: its bytes were compared
        return None


def _shapes(records: Sequence[Record]) -> Iterator[tuple[int, int] | None]:
    for record in records:
        shape = record.get("width"), record.get("height")
        yield shape if all(shape) else None


def _by_path(sets: Iterable[CheckedSet]) -> dict[str, Record]:
    return {
        os.path.abspath(record["file_name"]): record  # noqa: PTH100 - Path takes seconds for COCO
        for checked in sets
        for record in checked.records
        if "file_name" in record
    }


def _check_listed_twice(checked: CheckedSet, findings: Findings) -> None:
    first: dict[str, Record] = {}
    for record in checked.records:
        path = record.get("file_name")
        if path is None or first.setdefault(path, record) is record:
            continue
        example = f"{path}: images {first[path].get('image_id')} and {record.get('image_id')}"
        why = "Objects that one entry lacks are learnt as background, or count as wrong."
        where, what = f"data set '{checked.name}'", "images that are listed twice"
        findings.add(WARNING, where, what, "", example, why=why, fix=CLEAN)
