"""Configs that select a backbone, and what is asked of every one."""

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import nn

from retina_plugin import add_retina_config

LEVELS = {f"p{level}": 2**level for level in range(3, 8)}


def backbone_cfg(name: str, *overrides) -> CfgNode:
    """The builder of that name with a 16-channel neck on ``res3`` to ``res5``; nothing frozen.

    Args:
        name: ``build_retinanet_<name>_fpn_backbone``.
        overrides: keys and values in turn.
    """
    cfg = add_retina_config(get_cfg())
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "FocalRetinaNet"
    cfg.MODEL.BACKBONE.NAME = f"build_retinanet_{name}_fpn_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.FPN.IN_FEATURES = cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 16
    cfg.MODEL.RETINANET.NUM_CLASSES = 7
    cfg.merge_from_list(list(overrides))
    return cfg


def resnet18_keys() -> tuple:
    """Overrides that make Detectron2's ResNet one of depth 18."""
    return ("MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64)


@torch.no_grad()
def assert_is_pyramid(backbone: Backbone, image: torch.Tensor) -> None:
    """P3 to P7 of the strides and widths that the backbone says, on a multiple of 128 pixels."""
    maps = backbone.eval()(image)
    shapes = backbone.output_shape()
    assert {name: shape.stride for name, shape in shapes.items()} == LEVELS
    for name, shape in shapes.items():
        size = [side // shape.stride for side in image.shape[2:]]
        assert maps[name].shape == (len(image), shape.channels, *size), name
        assert maps[name].isfinite().all()


def trainable(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters())


class Flat(Backbone):
    """Somebody's backbone: average pooling, with names and strides of its own."""

    def __init__(self, strides, channels):
        super().__init__()
        self.strides = strides
        self.project = nn.Conv2d(channels, 8, 1)

    def output_shape(self):
        return {n: ShapeSpec(channels=8, stride=stride) for n, stride in self.strides.items()}

    def forward(self, x):
        x = self.project(x)
        return {n: nn.functional.avg_pool2d(x, stride) for n, stride in self.strides.items()}


def register_flat(monkeypatch, **strides) -> str:
    """Register a :class:`Flat` for a test's time; returns its name."""

    def build_somebodys_backbone(cfg, input_shape):
        return Flat(strides, input_shape.channels)

    name = "build_somebodys_backbone"
    monkeypatch.setitem(BACKBONE_REGISTRY._obj_map, name, build_somebodys_backbone)
    return name
