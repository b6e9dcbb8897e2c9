"""Any backbone registered with Detectron2, under a neck or with the levels that it lacks."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone

from retina_plugin.modeling.backbones.stage_names import stages_by_stride
from retina_plugin.modeling.backbones.top_levels import TopLevels, is_pyramid
from retina_plugin.registry import BACKBONES, NECKS, require_registered

NAME = "build_retinanet_registered_fpn_backbone"
KEY = "MODEL.BACKBONE.Registered.BOTTOM_UP"


@BACKBONES.register(defaults={"BOTTOM_UP": "build_resnet_backbone"}, node="Registered")
def build_retinanet_registered_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """``MODEL.BACKBONE.Registered.BOTTOM_UP``, of Detectron2's registry, and what it lacks.

    What its ``output_shape()`` says decides: a pyramid of levels ``p<N>`` that begins with the
    first of ``MODEL.RETINANET.IN_FEATURES`` gets the levels that it lacks on top, if any, see
    :class:`~retina_plugin.modeling.backbones.top_levels.TopLevels`; anything else gets
    ``MODEL.NECK`` on ``MODEL.FPN.IN_FEATURES``, where ``res<N>`` also means its output of stride
    2^N, whatever that is called. Freezing, norms and input channels are the registered builder's
    own business.

    Settings:
        bottom_up: name of a backbone in Detectron2's registry.

    Raises:
        UnknownNameError: no such backbone; lists the near and the registered ones.
        ValueError: it is this one, or it lacks a stride; lists what it has.
    """
    name = BACKBONES.settings(cfg, NAME)["BOTTOM_UP"]
    require_registered(BACKBONE_REGISTRY, name, KEY)
    if name == NAME:
        raise ValueError(f"{KEY} is this very builder: name another, such as build_resnet_backbone")
    bottom_up = BACKBONE_REGISTRY.get(name)(cfg, input_shape)
    shapes = bottom_up.output_shape()
    levels = cfg.MODEL.RETINANET.IN_FEATURES
    if all(level in shapes for level in levels):
        return bottom_up
    if is_pyramid(shapes, levels[0]):
        return TopLevels(bottom_up=bottom_up, levels=levels)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.FPN.IN_FEATURES = stages_by_stride(cfg.MODEL.FPN.IN_FEATURES, shapes, name)
    return NECKS.build(cfg, bottom_up=bottom_up)
