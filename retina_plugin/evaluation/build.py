"""Which of Detectron2's evaluators judges a data set."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, LVISEvaluator, PascalVOCDetectionEvaluator

from retina_plugin.evaluation.coco_evaluator import coco_evaluator
from retina_plugin.registry import unknown_name

TYPES = ("coco", "lvis", "pascal_voc")


def evaluator_type(dataset_name: str, *, coco_eval: str = "pycocotools") -> str:
    """The data set's ``evaluator_type``; without one, but with ``json_file``, it counts as COCO.

    Call it before training, whose first evaluation may be hours away.

    Args:
        dataset_name: as registered in ``DatasetCatalog``.
        coco_eval: who computes COCO's numbers, see ``coco_evaluator``; checked for any data set.

    Raises:
        UnknownNameError: another type than those in ``TYPES``, or another ``coco_eval``; lists the
            valid ones.
        ImportError: a package that the evaluator needs is not installed.
    """
    coco_evaluator(coco_eval)
    metadata = MetadataCatalog.get(dataset_name)
    kind = metadata.get("evaluator_type", "coco" if metadata.get("json_file") else "(none)")
    if kind not in TYPES:
        raise unknown_name(f"evaluator_type of the data set {dataset_name}", kind, TYPES)
    if kind == "lvis" and importlib.util.find_spec("lvis") is None:
        raise ImportError(
            f"the data set {dataset_name} is evaluated by LVIS's own package, which is not "
            'installed; get it with: pip install "retina-plugin[lvis]"'
        )
    return kind


def build_evaluator(
    dataset_name: str,
    output_dir: str | Path,
    *,
    coco_eval: str = "pycocotools",
    max_detections: int | None = None,
) -> DatasetEvaluator:
    """The evaluator of the data set's type: ``coco``, ``lvis`` or ``pascal_voc``.

    Args:
        dataset_name: as registered in ``DatasetCatalog``.
        output_dir: where COCO's and LVIS's write their predictions and results.
        coco_eval: who computes COCO's numbers: ``auto``, ``hotcoco`` or ``pycocotools``.
        max_detections: how many an image COCO's AP counts, the surest; None for its own 100.

    Raises:
        UnknownNameError, ImportError: see :func:`evaluator_type`.
    """
    kind = evaluator_type(dataset_name, coco_eval=coco_eval)
    if kind == "pascal_voc":
        return PascalVOCDetectionEvaluator(dataset_name)
    options = {"tasks": ("bbox",), "output_dir": str(output_dir)}
    if kind == "lvis":
        return LVISEvaluator(dataset_name, **options)
    # Detectron2's own fast implementation, where it was compiled, has slightly other numbers
    options["max_dets_per_image"] = max_detections
    return coco_evaluator(coco_eval)(dataset_name, use_fast_impl=False, **options)
