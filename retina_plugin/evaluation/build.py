"""Which of Detectron2's evaluators judges a data set."""

from __future__ import annotations

from pathlib import Path

from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, PascalVOCDetectionEvaluator

from retina_plugin.evaluation.coco_evaluator import coco_evaluator
from retina_plugin.evaluation.lvis_evaluator import (
    LVISBoxEvaluator,
    check_lvis_file,
    require_lvis,
)
from retina_plugin.registry import UnknownNameError, unknown_name

TYPES = ("coco", "lvis", "pascal_voc")


def evaluator_type(dataset_name: str, *, coco_eval: str = "pycocotools") -> str:
    """The data set's ``evaluator_type``; without one, but with ``json_file``, it counts as COCO.

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
    kind = metadata.get("evaluator_type", "coco" if metadata.get("json_file") else None)
    if kind is None:
        # what register_pascal_voc leaves in the metadata
        is_voc = all(metadata.get(x) is not None for x in ("dirname", "split", "year"))
        likely = "pascal_voc" if is_voc else "coco"
        raise UnknownNameError(
            f"the data set {dataset_name} has no evaluator_type, so it is unknown how to evaluate "
            f'it: set MetadataCatalog.get("{dataset_name}").evaluator_type = "{likely}" where it '
            f"is registered. Valid: {', '.join(TYPES)}."
        )
    if kind not in TYPES:
        raise unknown_name(f"evaluator_type of the data set {dataset_name}", kind, TYPES)
    if kind == "lvis":
        require_lvis(dataset_name)
    return kind


def check_evaluation(dataset_name: str, *, coco_eval: str = "pycocotools") -> None:
    """Raise what would end an evaluation of the data set, which may be hours away.

    Args:
        dataset_name, coco_eval: see :func:`evaluator_type`.

    Raises:
        UnknownNameError, ImportError: see :func:`evaluator_type`.
        ValueError: if LVIS's annotations lack what its evaluation needs.
    """
    if evaluator_type(dataset_name, coco_eval=coco_eval) == "lvis":
        check_lvis_file(dataset_name)


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
        return LVISBoxEvaluator(dataset_name, **options)
    # Detectron2's own fast implementation, where it was compiled, has slightly other numbers
    options["max_dets_per_image"] = max_detections
    return coco_evaluator(coco_eval)(dataset_name, use_fast_impl=False, **options)
