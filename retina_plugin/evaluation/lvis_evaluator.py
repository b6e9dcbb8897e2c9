"""Detectron2's LVIS evaluator, with what is wrong found before the training."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import LVISEvaluator
from detectron2.utils.file_io import PathManager

# What LVIS's package reads of each entry, beyond what COCO's format has
_NEEDED = {
    "images": ("neg_category_ids", "not_exhaustive_category_ids"),
    "categories": ("frequency",),
    "annotations": ("area",),
}
_FREQUENCIES = ("r", "c", "f")  # rare, common, frequent


class LVISBoxEvaluator(LVISEvaluator):
    """Detectron2's ``LVISEvaluator``, for any NumPy."""

    def evaluate(self) -> dict[str, Any] | None:
        """Return the results by task; see ``LVISEvaluator``."""
        with _numpy_float():
            return super().evaluate()


@contextmanager
def _numpy_float() -> Iterator[None]:
    """Workaround for lvis 0.5.3: it uses ``np.float``, gone since NumPy 1.24; here it is back."""
    if "float" in vars(np):
        yield
        return
    np.float = float
    try:
        yield
    finally:
        del np.float


def require_lvis(dataset_name: str) -> None:
    """Raise unless LVIS's package can be imported.

    Raises:
        ImportError: if it, or a package that it imports, is not installed.
    """
    try:
        importlib.import_module("lvis")
    except ImportError as error:
        raise ImportError(
            f"the data set {dataset_name} is evaluated by LVIS's own package, which cannot be "
            f'imported ({error}); get it with: pip install "retina-plugin[lvis]"'
        ) from error


def check_lvis_file(dataset_name: str) -> None:
    """Raise what LVIS's package would raise of the annotation file, after hours of training.

    Args:
        dataset_name: as registered in ``DatasetCatalog``.

    Raises:
        ValueError: if the data set has no annotation file, or one that is not in LVIS's format.
    """
    metadata = f'MetadataCatalog.get("{dataset_name}")'
    path = MetadataCatalog.get(dataset_name).get("json_file")
    if not path:
        raise ValueError(
            f"the data set {dataset_name} has evaluator_type lvis, but no json_file: set "
            f"{metadata}.json_file to its annotations in LVIS's format"
        )
    instead = f'correct the file, or evaluate it as COCO: {metadata}.evaluator_type = "coco"'
    with PathManager.open(path) as file:
        content: Mapping[str, Any] = json.load(file)
    for part, keys in _NEEDED.items():
        for entry in content.get(part, ()):
            missing = [key for key in keys if key not in entry]
            if missing:
                raise ValueError(
                    f"{path}: entry {entry.get('id')} of '{part}' has no {' and no '.join(missing)}"
                    f", which LVIS's evaluation needs: {instead}"
                )
    for entry in content["categories"]:
        if entry["frequency"] not in _FREQUENCIES:
            raise ValueError(
                f"{path}: category {entry['id']} has the frequency {entry['frequency']!r}, LVIS "
                f"has {', '.join(_FREQUENCIES)}: {instead}"
            )
