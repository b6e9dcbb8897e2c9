"""``TEST.AUG`` in evaluation."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from torch import nn

from retina_plugin.inference.augmented_detector import AugmentedDetector, check_augmentation

SUFFIX = "_TTA"  # of the results, as Detectron2's train_net.py names them


def augment_inference(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """The model on the views that ``TEST.AUG`` describes, whether or not that is ``ENABLED``."""
    return AugmentedDetector(model, flip=cfg.TEST.AUG.FLIP, **_checked(cfg))


def prepare_augmentation(cfg: CfgNode) -> None:
    """Refuse views that cannot be before anything is trained.

    Raises:
        ValueError: see :func:`check_augmentation`.
    """
    if cfg.TEST.AUG.ENABLED:
        check_augmentation(**_checked(cfg))


def _checked(cfg: CfgNode) -> dict[str, Any]:
    aug = cfg.TEST.AUG
    return {
        "min_sizes": aug.MIN_SIZES,
        "max_size": aug.MAX_SIZE,
        "vote_thresh": aug.get("VOTE_THRESH", 0.65),
        "batch": aug.get("BATCH", 2),
    }
