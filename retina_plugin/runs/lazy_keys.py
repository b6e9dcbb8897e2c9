"""Mapping from yaml config keys to their places in a LazyConfig."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from detectron2.config import CfgNode
from omegaconf import DictConfig, ListConfig, OmegaConf

# Settings below ``train``, read by the trainer and the tools
OF_THE_TRAINING = {
    "OUTPUT_DIR": "output_dir",
    "SEED": "seed",
    "CUDNN_BENCHMARK": "cudnn_benchmark",
    "MODEL.DEVICE": "device",
    "MODEL.WEIGHTS": "init_checkpoint",
    "MODEL.WEIGHTS_ALLOW_PARTIAL": "weights_allow_partial",
    "SOLVER.MAX_ITER": "max_iter",
    "SOLVER.ACCUMULATE": "accumulate",
    "SOLVER.AMP": "amp",
    "SOLVER.CHECKPOINT_PERIOD": "checkpointer.period",
    "SOLVER.KEEP_CHECKPOINTS": "checkpointer.max_to_keep",
    "SOLVER.NON_FINITE": "non_finite",
    "SOLVER.WEIGHT_AVERAGE": "weight_average",
    "TEST.EVAL_PERIOD": "eval_period",
    "TEST.BEST": "best",
    "TEST.EARLY_STOPPING": "early_stopping",
    "TEST.OPTIMIZE": "optimize_inference",
    "TEST.AUG": "test_augmentation",
    "INPUT.TILES.TEST_SIZE": "test_tiles.size",
    "INPUT.TILES.TEST_OVERLAP": "test_tiles.overlap",
    "INPUT.TILES.TEST_BATCH": "test_tiles.batch",
    "LOGGERS": "loggers",
    "FLUSH_DENORMAL": "flush_denormal",
}
# Keys read from the objects of the LazyConfig, at the first place that exists. If a setting
# is changed after the file was read, it is written back to that place.
OF_OBJECTS = {
    "MODEL.PIXEL_MEAN": ("model.pixel_mean",),
    "MODEL.PIXEL_STD": ("model.pixel_std",),
    "MODEL.RETINANET.NUM_CLASSES": ("model.num_classes",),
    "MODEL.RETINANET.IN_FEATURES": ("model.head_in_features",),
    "MODEL.RETINANET.IOU_THRESHOLDS": (
        "model.assigner.iou_thresholds",
        "model.anchor_matcher.thresholds",
    ),
    "MODEL.RETINANET.IOU_LABELS": ("model.assigner.iou_labels", "model.anchor_matcher.labels"),
    "MODEL.RETINANET.SCORE_THRESH_TEST": (
        "model.post_processor.score_thresh",
        "model.test_score_thresh",
    ),
    "MODEL.RETINANET.NMS_THRESH_TEST": (
        "model.post_processor.nms_thresh",
        "model.test_nms_thresh",
    ),
    "MODEL.RETINANET.TOPK_CANDIDATES_TEST": (
        "model.post_processor.topk",
        "model.test_topk_candidates",
    ),
    "TEST.DETECTIONS_PER_IMAGE": (
        "model.post_processor.max_detections",
        "model.max_detections_per_image",
    ),
    "VIS_PERIOD": ("model.vis_period",),
    "MODEL.ANCHOR_GENERATOR.SIZES": (
        "model.anchor_generator.base_sizes",
        "model.anchor_generator.sizes",
    ),
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": ("model.anchor_generator.aspect_ratios",),
    "MODEL.ANCHOR_GENERATOR.OFFSET": ("model.anchor_generator.offset",),
    "MODEL.ANCHOR_GENERATOR.OctaveAnchorGenerator.SCALES_PER_OCTAVE": (
        "model.anchor_generator.scales_per_octave",
    ),
    "SOLVER.BASE_LR": ("optimizer.lr",),
    "SOLVER.MOMENTUM": ("optimizer.momentum",),
    "SOLVER.WEIGHT_DECAY": ("optimizer.weight_decay",),
    "SOLVER.IMS_PER_BATCH": ("dataloader.train.total_batch_size",),
    "DATALOADER.NUM_WORKERS": ("dataloader.train.num_workers",),
    "DATALOADER.ASPECT_RATIO_GROUPING": ("dataloader.train.aspect_ratio_grouping",),
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": ("dataloader.train.dataset.filter_empty",),
}
# Other keys that may be set; they have no place in a LazyConfig
FREE = (
    *("DATALOADER.", "DATASETS.", "DOCTOR.", "INPUT.MIX.", "INPUT.TILES.", "SOLVER.AMP."),
    *("SOLVER.CLIP_GRADIENTS.", "SOLVER.NON_FINITE.", "SOLVER.WEIGHT_AVERAGE.", "TEST."),
    *("INPUT.DECODER", "INPUT.IGNORE_CROWD", "REPORT"),
    *("MODEL.CHANNELS_LAST", "MODEL.FOLD_FROZEN_NORMS", "MODEL.WINOGRAD"),
    "MODEL.BACKBONE.GRADIENT_CHECKPOINTING",
    *("SOLVER.LOG_GRAD_NORM", "SOLVER.REFERENCE_WORLD_SIZE"),
)


def home_of(key: str) -> str:
    """Return the place of a yaml ``key`` in a LazyConfig; "" if it has none."""
    for prefix, path in OF_THE_TRAINING.items():
        if key == prefix:
            return f"train.{path}"
        if key.startswith(f"{prefix}."):
            return f"train.{path}.{key.removeprefix(f'{prefix}.').lower()}"
    return OF_OBJECTS[key][0] if key in OF_OBJECTS else ""


def training_settings(train: DictConfig, settings: CfgNode) -> Iterator[tuple[str, Any]]:
    """Yield the keys that ``train`` sets, with their values.

    Args:
        train: ``train`` node of the LazyConfig.
        settings: settings whose nested groups are groups in ``train``, too.
    """
    for key, path in OF_THE_TRAINING.items():
        value = plain(OmegaConf.select(train, path))
        if value is None or (key == "TEST.AUG" and not value.get("min_sizes")):
            continue
        if not isinstance(value, Mapping):
            yield key, value
            continue
        for name, x in value.items():
            yield f"{key}.{name.upper()}", x
        if key == "TEST.AUG":
            yield "TEST.AUG.ENABLED", True


def object_settings(lazy: DictConfig) -> Iterator[tuple[str, Any]]:
    """Yield the keys that the model, the optimizer and the loaders set, with their values."""
    for key, paths in OF_OBJECTS.items():
        found = [plain(OmegaConf.select(lazy, path)) for path in paths]
        value = next((x for x in found if x is not None), None)
        if value is None:
            continue
        if key.endswith(".ASPECT_RATIOS") and not isinstance(value[0], list):
            value = [value]
        yield key, value


def write_back(lazy: DictConfig, key: str, value: Any) -> bool:
    """Set the place of a yaml ``key``; return whether there is one."""
    for path in OF_OBJECTS[key]:
        above, _, name = path.rpartition(".")
        node = OmegaConf.select(lazy, above)
        if isinstance(node, DictConfig) and (name in node or "_target_" in node):
            node[name] = value
            return True
    return False


def plain(value: Any) -> Any:
    """Convert a node to Python containers with resolved interpolations."""
    if isinstance(value, DictConfig | ListConfig):
        return OmegaConf.to_container(value, resolve=True)
    return value
