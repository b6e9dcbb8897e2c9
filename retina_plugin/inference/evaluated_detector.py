"""What is evaluated of a trained model: an optimised copy, by tiles."""

from __future__ import annotations

from detectron2.config import CfgNode
from torch import nn

from retina_plugin.inference.optimize_for_inference import optimize_for_inference
from retina_plugin.inference.tiled_inference import tile_inference


def evaluated_detector(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """The optimised copy of a model, by tiles where the config says so."""
    if cfg.TEST.get("OPTIMIZE", True):
        model = optimize_for_inference(
            model,
            winograd=cfg.MODEL.get("WINOGRAD", False),
            compile=cfg.TEST.get("COMPILE", False),
        )
    return tile_inference(cfg, model)
