"""``add_retina_config``: the plugin's keys beside Detectron2's."""

from __future__ import annotations

from detectron2.config import CfgNode

from retina_plugin.registry import ROLES

# How much the losses count: modeling/losses/weighting.py
LOSS_DEFAULTS = {"CLS": 1.0, "BOX_REG": 1.0, "BOXES_BY": "none", "COUNT": "positives"}

MIX = {
    "MOSAIC_PROB": 0.0,
    "MIXUP_PROB": 0.0,
    "COPY_PASTE_PROB": 0.0,
    "SIZE": 0,
    "MOSAIC_SCALE": [0.5, 1.0],
    "MIXUP_ALPHA": 32.0,
    "COPY_PASTE_SHARE": 0.5,
    "MIN_VISIBLE": 0.25,
    "CLOSE_STEPS": 0,
}

TILES = {
    "TRAIN_SIZE": 0,
    "TRAIN_OVERLAP": 0,
    "MIN_VISIBLE": 0.5,
    "CACHE": 4,
    "TEST_SIZE": 0,
    "TEST_OVERLAP": 128,
    "TEST_BATCH": 1,
}

NON_FINITE = {"ACTION": "stop", "MAX_SKIPS": 10, "WRITE": 3, "CHECK_GRADIENTS": False}


def add_retina_config(cfg: CfgNode) -> CfgNode:
    """Add the plugin's keys with their defaults; keys that are there already keep their values.

    The components bring the keys of ``MODEL`` when they register. The rest:

    * ``DATASETS.COCO``: data sets in COCO's json format, registered before training. ``JSON`` and
      ``IMAGES`` are a path or a list of them, ``NAME`` defaults to the json's stem, ``CLASS_NAMES``
      to the json's categories. ``EXTRA_ANNOTATION_KEYS`` become fields of the training objects,
      ``weight`` ``gt_weight`` and so on, ``EXTRA_IMAGE_KEYS`` keys of the records.
    * ``DATALOADER.GROUP_FIELD`` and ``GROUP_POWER``: of ``GroupBalancedSampler``.
    * ``DATASETS.CHECK_FILES``: look at every image file before training.
    * ``INPUT.AUGMENTATIONS`` and ``INPUT.AUGMENTATIONS_TEST``: lists of ``{NAME: ..., argument:
      value}``; empty means Detectron2's own, made from ``INPUT``.
    * ``INPUT.IGNORE_CROWD``: no background is learnt in what the json has as ``iscrowd: 1``, which
      COCO's evaluator does not count either.
    * ``INPUT.MIX``: mosaic, mixup, copy-paste, see ``data/mixing.py``.
    * ``INPUT.TILES``: large images by tiles, in training where ``TRAIN_SIZE`` is a tile's side, in
      the file's pixels, see ``data/tile_records.py``; ``CACHE`` is how many decoded images each
      process of the loader keeps. In evaluation where ``TEST_SIZE`` is one, in pixels that the
      network sees, see ``inference/tiled_detector.py``.
    * ``INPUT.DECODER``: what decodes image files, ``PIL`` or ``simplejpeg``. Detectron2's own
      ``INPUT.FORMAT`` may be ``bands``: any number of channels as the files have them, see
      ``data/band_files.py``.
    * ``MODEL.RETINANET.LOSS``: how much the losses count, see ``modeling/losses/weighting.py``.
    * ``MODEL.CHANNELS_LAST``: keep activations and weights channel by channel, faster on most CPUs
      and on GPUs with tensor cores.
    * ``MODEL.FOLD_FROZEN_NORMS``: compute a convolution and the frozen norm after it as one
      convolution, in training as well.
    * ``MODEL.WEIGHTS_ALLOW_PARTIAL``: train on with a file that has less than 90 % of the backbone.
    * ``MODEL.WINOGRAD``: 3x3 convolutions with fewer multiplications, on the CPU.
    * ``MODEL.BACKBONE.GRADIENT_CHECKPOINTING``: compute the backbone's activations a second time in
      the backward pass instead of keeping them.
    * ``SOLVER.OPTIMIZER``, ``BACKBONE_LR_FACTOR``, ``LAYER_DECAY``: see ``runs/solver.py``;
      ``ACCUMULATE``: ``engine/step.py``; ``WEIGHT_AVERAGE``: ``modeling/weight_average.py``;
      ``NON_FINITE``: what happens when a loss is not finite, ``engine/non_finite/guard.py``.
    * ``SOLVER.AMP.PRECISION``: ``float16`` or ``bfloat16``; ``auto`` is what Detectron2 does on
      CUDA, float16, and bfloat16 on the CPU.
    * ``DOCTOR.ENABLED``: look for what is wrong before training, see ``workbench/doctor``; False
      checks the data alone.
    * ``FLUSH_DENORMAL``: take numbers too small for the CPU's fast path as 0.
    * ``TEST.OPTIMIZE`` and ``TEST.COMPILE``: evaluate through ``optimize_for_inference``.
    * ``TEST.AUG``: Detectron2's keys, and ``VOTE_THRESH`` (1 is no box voting), ``BATCH`` (views at
      a time) and ``PERIODIC`` (at every evaluation, not the last alone): see
      ``inference/augmented_detector.py``.
    * ``TEST.VALIDATION_LOSS``: the losses of the test sets at each evaluation, see
      ``engine/validation_loss.py``. ``TEST.BEST``: what ``model_best.pth`` is the best of, by the
      names in ``metrics.json``; ``""`` for no such file. ``TEST.EARLY_STOPPING``: see
      ``engine/hooks/early_stopping.py``; ``PATIENCE`` 0 never stops.
    * ``SOLVER.KEEP_CHECKPOINTS``: how many of the periodic checkpoints stay, 0 for all;
      ``LOG_GRAD_NORM``: log the norm of the gradients. ``LOGGERS``: ``wandb`` and ``mlflow``.
    * ``REPORT``: write ``OUTPUT_DIR/report.html`` at the end of a training; ``TEST.GROUP_FIELDS``:
      fields of the test json's images or annotations by which it breaks down the numbers.
    * ``TEST.COCO_EVAL``: who computes COCO's numbers, see ``evaluation/coco_evaluator.py``.

    Returns:
        ``cfg``, for chaining.

    Raises:
        ValueError: ``cfg`` is frozen.
    """
    if cfg.is_frozen():
        raise ValueError("the config is frozen: call add_retina_config before cfg.freeze()")
    for role in ROLES:
        _add(cfg, role.node, role.config_defaults())
    _add(cfg, "MODEL.RETINANET.LOSS", CfgNode(LOSS_DEFAULTS))
    split = {"NAME": None, "JSON": None, "IMAGES": None}
    extra = {"EXTRA_ANNOTATION_KEYS": [], "EXTRA_IMAGE_KEYS": []}
    coco = {"TRAIN": CfgNode(split), "TEST": CfgNode(split), "CLASS_NAMES": None, **extra}
    _add(cfg, "DATASETS", CfgNode({"COCO": CfgNode(coco), "CHECK_FILES": True}))
    backbone = CfgNode({"GRADIENT_CHECKPOINTING": False})
    model = {
        "CHANNELS_LAST": False,
        "FOLD_FROZEN_NORMS": False,
        "WEIGHTS_ALLOW_PARTIAL": False,
        "WINOGRAD": True,
    }
    _add(cfg, "MODEL", CfgNode({**model, "BACKBONE": backbone}))
    _add(cfg, "INPUT", CfgNode({"AUGMENTATIONS": [], "AUGMENTATIONS_TEST": [], "DECODER": "PIL"}))
    _add(cfg, "INPUT", CfgNode({"IGNORE_CROWD": False}))
    _add(cfg, "INPUT", CfgNode({"MIX": CfgNode(MIX), "TILES": CfgNode(TILES)}))
    _add(cfg, "DATALOADER", CfgNode({"GROUP_FIELD": "", "GROUP_POWER": 1.0}))
    solver = {
        "OPTIMIZER": "SGD",
        "BACKBONE_LR_FACTOR": 1.0,
        "LAYER_DECAY": 1.0,
        "ACCUMULATE": 1,
        "WEIGHT_AVERAGE": CfgNode({"DECAY": 0.0, "WARMUP": 10.0, "EVALUATE_BOTH": False}),
        "NON_FINITE": CfgNode(NON_FINITE),
        "AMP": CfgNode({"PRECISION": "auto"}),
    }
    _add(cfg, "SOLVER", CfgNode(solver))
    _add(cfg, "TEST", CfgNode({"OPTIMIZE": True, "COMPILE": False, "COCO_EVAL": "auto"}))
    aug = {"VOTE_THRESH": 0.65, "BATCH": 2, "PERIODIC": False}
    _add(cfg, "TEST.AUG", CfgNode(aug))
    best = {"METRIC": "auto", "MODE": "auto"}
    stopping = {**best, "PATIENCE": 0, "MIN_DELTA": 0.0}
    run = {"BEST": CfgNode(best), "EARLY_STOPPING": CfgNode(stopping), "VALIDATION_LOSS": True}
    _add(cfg, "TEST", CfgNode(run))
    _add(cfg, "SOLVER", CfgNode({"KEEP_CHECKPOINTS": 0, "LOG_GRAD_NORM": True}))
    _add(cfg, "", CfgNode({"LOGGERS": []}))
    _add(cfg, "", CfgNode({"FLUSH_DENORMAL": True, "DOCTOR": CfgNode({"ENABLED": True})}))
    _add(cfg, "", CfgNode({"REPORT": True, "TEST": CfgNode({"GROUP_FIELDS": []})}))
    return cfg


def _add(cfg: CfgNode, path: str, defaults: CfgNode) -> None:
    """Merge ``defaults`` into the node at ``path`` wherever it has no value yet."""
    node = cfg
    for part in filter(None, path.split(".")):
        node = node.setdefault(part, type(cfg)())
    for key, value in defaults.items():
        if isinstance(value, CfgNode):
            node.setdefault(key, type(cfg)())
            _add(node, key, value)
        else:
            node.setdefault(key, value)
