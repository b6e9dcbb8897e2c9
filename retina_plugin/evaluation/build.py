"""Which of Detectron2's evaluators judges a data set."""

from __future__ import annotations

from pathlib import Path

from detectron2.data import MetadataCatalog
from detectron2.evaluation import (
    COCOEvaluator,
    DatasetEvaluator,
    LVISEvaluator,
    PascalVOCDetectionEvaluator,
)

from retina_plugin.registry import unknown_name


def build_evaluator(dataset_name: str, output_dir: str | Path) -> DatasetEvaluator:
    """The evaluator for the data set's ``evaluator_type``: ``coco``, ``lvis`` or ``pascal_voc``.

    A data set without a type, but with ``json_file``, counts as COCO.

    Args:
        dataset_name: as registered in ``DatasetCatalog``.
        output_dir: where COCO's and LVIS's write their predictions and results.

    Raises:
        UnknownNameError: another type; lists the valid ones.
    """
    metadata = MetadataCatalog.get(dataset_name)
    builders = {
        "coco": lambda: COCOEvaluator(dataset_name, tasks=("bbox",), output_dir=str(output_dir)),
        "lvis": lambda: LVISEvaluator(dataset_name, tasks=("bbox",), output_dir=str(output_dir)),
        "pascal_voc": lambda: PascalVOCDetectionEvaluator(dataset_name),
    }
    kind = metadata.get("evaluator_type", "coco" if metadata.get("json_file") else "(none)")
    if kind not in builders:
        raise unknown_name(f"evaluator_type of the data set {dataset_name}", kind, builders)
    return builders[kind]()
