"""What is evaluated of a trained model: an optimised copy, by tiles, on several views."""

from __future__ import annotations

from detectron2.config import CfgNode
from omegaconf import DictConfig
from torch import nn

from retina_plugin.inference.augmented_detector import AugmentedDetector
from retina_plugin.inference.optimize_for_inference import optimize_for_inference
from retina_plugin.inference.tiled_detector import TiledDetector
from retina_plugin.inference.tiled_inference import tile_inference


def evaluated_detector(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """The optimised copy of a model, by tiles where the config says so."""
    if cfg.TEST.get("OPTIMIZE", True):
        model = optimize_for_inference(
            model,
            winograd=cfg.MODEL.get("WINOGRAD", True),
            compile=cfg.TEST.get("COMPILE", False),
        )
    return tile_inference(cfg, model)


def optimized_detector(cfg: DictConfig, model: nn.Module) -> nn.Module:
    """What is evaluated of a model.

    Unless ``train.optimize_inference`` is off, a copy that ``optimize_for_inference`` made; by
    tiles where ``train.test_tiles``, the arguments of ``TiledDetector``, has a ``size``; on the
    views of ``train.test_augmentation``, the arguments of ``AugmentedDetector``, if it has
    ``min_sizes``.
    """
    if cfg.train.get("optimize_inference", True):
        model = optimize_for_inference(model)
    model = tiled(cfg, model)
    views = cfg.train.get("test_augmentation", {})
    return AugmentedDetector(model, **views) if views.get("min_sizes") else model


def tiled(cfg: DictConfig, model: nn.Module) -> nn.Module:
    """The model, by tiles where ``train.test_tiles.size`` is a tile's side."""
    tiles = cfg.train.get("test_tiles", {})
    return TiledDetector(model, **tiles) if tiles.get("size", 0) else model
