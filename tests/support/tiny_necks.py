"""Stages of different channels for necks to stand on, and detectors with any neck."""

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from support.tiny_models import tiny_focal_cfg
from torch import nn

from retina_plugin.modeling import necks  # noqa: F401
from retina_plugin.registry import NECKS

NAMES = sorted(name for name, neck in NECKS if neck.__module__.startswith("retina_plugin."))
C = 32  # one for each of GroupNorm's 32 groups
CHANNELS = {"res3": 8, "res4": 12, "res5": 16}


class TinyStages(Backbone):
    """Convolutions of other channels at each stage.

    Args:
        strides: of each output.
        divisibility: what it asks of the image's sides.
    """

    def __init__(self, strides=(8, 16, 32), divisibility=0):
        super().__init__()
        self._out_features = list(CHANNELS)
        self._out_feature_channels = CHANNELS
        self._out_feature_strides = dict(zip(CHANNELS, strides, strict=True))
        self._divisibility = divisibility
        inputs, before = 3, 1
        for name, stride in self._out_feature_strides.items():
            step = stride // before
            self.add_module(name, nn.Conv2d(inputs, CHANNELS[name], step + 1, step, step // 2))
            inputs, before = CHANNELS[name], stride

    @property
    def size_divisibility(self):
        return self._divisibility

    def forward(self, x):
        outputs = {}
        for name in CHANNELS:
            x = outputs[name] = getattr(self, name)(x).relu()
        return outputs


class GivenStages(Backbone):
    """Stages that are given: the neck's input, whatever the image."""

    def __init__(self, stages: dict[str, torch.Tensor], strides=(8, 16, 32)):
        super().__init__()
        self.stages = stages
        self._strides = strides

    def output_shape(self):
        pairs = zip(self.stages.items(), self._strides, strict=True)
        return {name: ShapeSpec(channels=x.shape[1], stride=s) for (name, x), s in pairs}

    def forward(self, x):
        return self.stages


@BACKBONE_REGISTRY.register()
def build_tiny_neck_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    return NECKS.build(cfg, bottom_up=TinyStages())


@BACKBONE_REGISTRY.register()
def build_tiny_stages_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    return TinyStages()


def neck_cfg(name: str, norm: str = "BN", **settings) -> CfgNode:
    """A tiny detector with that neck.

    Args:
        settings: keys of ``MODEL.NECK.<name>``.
    """
    cfg = tiny_focal_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_tiny_neck_backbone"
    cfg.MODEL.FPN.IN_FEATURES = list(CHANNELS)
    cfg.MODEL.FPN.OUT_CHANNELS = C
    cfg.MODEL.FPN.NORM = norm
    cfg.MODEL.NECK.NAME = name
    cfg.MODEL.RETINANET.NORMALIZER.NAME = "BatchNormalizer"
    for key, value in settings.items():
        cfg.merge_from_list([f"MODEL.NECK.{name}.{key}", value])
    return cfg


def make_neck(name: str, bottom_up: Backbone | None = None, **arguments) -> Backbone:
    """A neck on tiny stages, in evaluation or training mode as any new module."""
    settings = {"in_features": list(CHANNELS), "out_channels": C, "norm": "BN", **arguments}
    return NECKS.get(name)(bottom_up=bottom_up or TinyStages(), **settings)
