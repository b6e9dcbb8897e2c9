"""``add_retina_config``: the plugin's keys beside Detectron2's."""

from __future__ import annotations

from detectron2.config import CfgNode

from retina_plugin.registry import ROLES


def add_retina_config(cfg: CfgNode) -> CfgNode:
    """Add the plugin's keys with their defaults; keys that are there already keep their values.

    The components bring the keys of ``MODEL`` when they register. The rest:

    * ``DATASETS.COCO``: data sets in COCO's json format, registered before training. ``JSON`` and
      ``IMAGES`` are a path or a list of them, ``NAME`` defaults to the json's stem, ``CLASS_NAMES``
      to the json's categories.
    * ``DATASETS.CHECK_FILES``: look at every image file before training.
    * ``INPUT.AUGMENTATIONS`` and ``INPUT.AUGMENTATIONS_TEST``: lists of ``{NAME: ..., argument:
      value}``; empty means Detectron2's own, made from ``INPUT``.
    * ``MODEL.CHANNELS_LAST``: keep activations and weights channel by channel, faster on most CPUs
      and on GPUs with tensor cores.
    * ``SOLVER.OPTIMIZER`` and ``SOLVER.BACKBONE_LR_FACTOR``.

    Returns:
        ``cfg``, for chaining.

    Raises:
        ValueError: ``cfg`` is frozen.
    """
    if cfg.is_frozen():
        raise ValueError("the config is frozen: call add_retina_config before cfg.freeze()")
    for role in ROLES:
        _add(cfg, role.node, role.config_defaults())
    split = {"NAME": None, "JSON": None, "IMAGES": None}
    coco = {"TRAIN": CfgNode(split), "TEST": CfgNode(split), "CLASS_NAMES": None}
    _add(cfg, "DATASETS", CfgNode({"COCO": CfgNode(coco), "CHECK_FILES": True}))
    _add(cfg, "MODEL", CfgNode({"CHANNELS_LAST": False}))
    _add(cfg, "INPUT", CfgNode({"AUGMENTATIONS": [], "AUGMENTATIONS_TEST": []}))
    _add(cfg, "SOLVER", CfgNode({"OPTIMIZER": "SGD", "BACKBONE_LR_FACTOR": 1.0}))
    return cfg


def _add(cfg: CfgNode, path: str, defaults: CfgNode) -> None:
    """Merge ``defaults`` into the node at ``path`` wherever it has no value yet."""
    node = cfg
    for part in path.split("."):
        node = node.setdefault(part, type(cfg)())
    for key, value in defaults.items():
        if isinstance(value, CfgNode):
            node.setdefault(key, type(cfg)())
            _add(node, key, value)
        else:
            node.setdefault(key, value)
