"""How many boxes each class has to learn and to be measured by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from logging import INFO, WARNING

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from retina_plugin.data.checks import CheckedSet
from retina_plugin.data.findings import Findings


def check_classes(cfg: CfgNode, sets: Sequence[CheckedSet], findings: Findings) -> None:
    """Name the classes that training or evaluation has no box of."""
    counts = {split: _counts(sets, split) for split in ("TRAIN", "TEST")}
    names = next((_names(x) for x in sets if _names(x)), ())
    num_classes = cfg.MODEL.RETINANET.NUM_CLASSES
    for index in range(num_classes):
        name = names[index] if index < len(names) else f"class {index}"
        learnt, measured = counts["TRAIN"][index], counts["TEST"][index]
        if not learnt:
            what = f"classes of {num_classes} without a box to train on"
            advice = "Add images of them, or remove the categories from all jsons."
            why = "They are never found."
            example = name + (f" ({measured} boxes in the evaluation)" if measured else "")
            findings.add(WARNING, "DATASETS.TRAIN", what, advice, example, why=why)
        elif not measured and cfg.DATASETS.TEST:
            what = f"classes of {num_classes} without a box to find"
            why = "They do not count in the AP."
            findings.add(INFO, "DATASETS.TEST", what, "", name, why=why)


def _counts(sets: Sequence[CheckedSet], split: str) -> Counter[int]:
    return Counter(
        annotation["category_id"]
        for checked in sets
        if split in checked.splits
        for record in checked.records
        for annotation in record.get("annotations", ())
        if not annotation.get("iscrowd", 0)
    )


def _names(checked: CheckedSet) -> Sequence[str]:
    return MetadataCatalog.get(checked.name).get("thing_classes") or ()
