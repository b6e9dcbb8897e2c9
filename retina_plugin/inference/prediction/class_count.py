"""How many classes the weights of a detector are for."""

from __future__ import annotations

from pathlib import Path

from detectron2.config import CfgNode

from retina_plugin.checkpoint.reading import read_file, tensors_in
from retina_plugin.runs.load_run import run_of


def classes_in_weights(cfg: CfgNode, weights: str | Path) -> int:
    """K, by the tensors whose size depends on it.

    These are found by building the detector for one class and for two: whatever its head is, their
    first side is ``a + b * K``.

    Args:
        cfg: not frozen; not changed. Its ``NUM_CLASSES`` is not looked at.
        weights: a file with the names of the config's detector.

    Raises:
        ValueError: the file cannot be read, or its tensors are not of this detector.
    """
    one, two = (_first_sides(cfg, classes) for classes in (1, 2))
    given = tensors_in(read_file(str(weights)), str(weights))
    counts = set()
    for name, side in one.items():
        per_class = two[name] - side
        if per_class and name in given and given[name].dim():
            count, rest = divmod(given[name].shape[0] - (side - per_class), per_class)
            counts.add(None if rest or count < 1 else count)
    if len(counts) != 1 or None in counts:
        raise ValueError(
            f"{weights}: how many classes it is for cannot be told, its tensors are not those of "
            "the config's detector. Give the config that it was trained with, or set "
            "MODEL.RETINANET.NUM_CLASSES"
        )
    return counts.pop()


def _first_sides(cfg: CfgNode, classes: int) -> dict[str, int]:
    cfg = cfg.clone()
    cfg.MODEL.RETINANET.NUM_CLASSES = classes
    cfg.MODEL.DEVICE = "cpu"
    state = run_of(cfg).build_model().state_dict()
    return {name: tensor.shape[0] for name, tensor in state.items() if tensor.dim()}
