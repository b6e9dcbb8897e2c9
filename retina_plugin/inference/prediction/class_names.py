"""What the classes that a detector finds are called, and their ids in COCO's json."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from retina_plugin.data.coco_file import read_coco_file
from retina_plugin.data.coco_places import as_tuple, located


class ClassNames(NamedTuple):
    """Names and COCO's category ids of K classes, in the order of the classes.

    ``source`` is where they come from; "" if they were made up.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]
    source: str

    @classmethod
    def of(cls, names: Iterable[str], source: str) -> ClassNames:
        """With the ids 1 to K."""
        names = tuple(map(str, names))
        return cls(names, tuple(range(1, len(names) + 1)), source)


def numbered_classes(count: int) -> ClassNames:
    """``class 0`` and so on."""
    return ClassNames.of((f"class {index}" for index in range(count)), "")


def classes_of_config(cfg: CfgNode) -> ClassNames | None:
    """Of ``DATASETS.COCO``'s jsons and names, else of the data sets' metadata; None if unknown.

    The data need not be there: where they were trained on need not be where the detector is used.
    """
    coco = cfg.DATASETS.get("COCO") or {}
    found = _of_jsons(coco)
    names = as_tuple(coco.get("CLASS_NAMES"))
    if names:
        same = found is not None and found.names == tuple(map(str, names))
        return found if same else ClassNames.of(names, "DATASETS.COCO.CLASS_NAMES")
    return found or classes_of_metadata([*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN])


def _of_jsons(coco: dict) -> ClassNames | None:
    for split in ("TEST", "TRAIN"):
        for value in as_tuple((coco.get(split) or {}).get("JSON")):
            path = located(value)
            if not path.is_file():
                continue
            content = read_coco_file(path)
            if content.class_names:
                return ClassNames(content.class_names, tuple(content.class_ids), str(path))
    return None


def classes_of_metadata(datasets: Iterable[str]) -> ClassNames | None:
    """Of the first registered data set whose classes Detectron2 knows."""
    for name in datasets:
        metadata = MetadataCatalog.get(name) if name in MetadataCatalog else None
        names = metadata.get("thing_classes") if metadata else None
        if names:
            found = ClassNames.of(names, f"the metadata of '{name}'")
            to_class = metadata.get("thing_dataset_id_to_contiguous_id")
            ids = sorted(to_class, key=to_class.get) if to_class else found.ids
            return found._replace(ids=tuple(ids))
    return None
