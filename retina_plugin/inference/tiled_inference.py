"""``INPUT.TILES`` in evaluation."""

from __future__ import annotations

import logging

from detectron2.config import CfgNode
from PIL import Image
from torch import nn

from retina_plugin.inference.tiled_detector import TiledDetector, check_test_tiles

logger = logging.getLogger(__name__)


def tile_inference(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """The model, by tiles where ``INPUT.TILES.TEST_SIZE`` is a tile's side; see TiledDetector."""
    tiles = cfg.INPUT.get("TILES") or {}
    if not tiles.get("TEST_SIZE", 0):
        return model
    return TiledDetector(
        model, size=tiles.TEST_SIZE, overlap=tiles.TEST_OVERLAP, batch=tiles.TEST_BATCH
    )


def prepare_tiles(cfg: CfgNode) -> None:
    """Refuse tiles that cannot be before anything is trained, and let images be large.

    Pillow takes files of more than 179 million pixels for an attack and refuses them; where tiles
    are asked for they are what is meant.

    Raises:
        ValueError: see :func:`check_test_tiles`.
    """
    tiles = cfg.INPUT.get("TILES") or {}
    if not (tiles.get("TEST_SIZE", 0) or tiles.get("TRAIN_SIZE", 0)):
        return
    Image.MAX_IMAGE_PIXELS = None
    if not tiles.TEST_SIZE:
        return
    check_test_tiles(size=tiles.TEST_SIZE, overlap=tiles.TEST_OVERLAP, batch=tiles.TEST_BATCH)
    if cfg.INPUT.MIN_SIZE_TEST and not cfg.INPUT.get("AUGMENTATIONS_TEST"):
        logger.warning(
            f"INPUT.TILES.TEST_SIZE cuts the resized images: INPUT.MIN_SIZE_TEST makes their "
            f"shorter side {cfg.INPUT.MIN_SIZE_TEST} pixels, and INPUT.MAX_SIZE_TEST the longer "
            f"one {cfg.INPUT.MAX_SIZE_TEST} at most. Set MIN_SIZE_TEST 0 to see them as they are."
        )
