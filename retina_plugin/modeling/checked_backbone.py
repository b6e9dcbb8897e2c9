"""The backbone that a config asks for, and what can be wrong with it before training."""

from __future__ import annotations

import logging

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone, build_backbone

from retina_plugin.modeling.abilities import warn_of_undeclared
from retina_plugin.modeling.backbones.pixel_format import pixel_warning
from retina_plugin.modeling.backbones.pretrained_network import PretrainedNetwork
from retina_plugin.modeling.pretrained_part import pretrained_part
from retina_plugin.registry import NECKS, require_built

logger = logging.getLogger(__name__)


def build_checked_backbone(cfg: CfgNode, channels: int) -> Backbone:
    """Backbone and neck for images of so many channels.

    Pixels that the backbone's usual weights do not know are warned of.

    Raises:
        ValueError: the neck that the config asks for is not there, or not all of
            ``MODEL.RETINANET.IN_FEATURES``; says what is.
    """
    backbone = build_backbone(cfg, ShapeSpec(channels=channels))
    require_built(
        NECKS,
        cfg,
        backbone,
        f"{cfg.MODEL.BACKBONE.NAME} builds a neck of its own; take a backbone builder that "
        "calls NECKS.build, or leave MODEL.NECK as it is",
    )
    shapes = backbone.output_shape()
    for name in cfg.MODEL.RETINANET.IN_FEATURES:
        if name not in shapes:
            raise ValueError(
                f"MODEL.RETINANET.IN_FEATURES asks for '{name}', but the backbone "
                f"{cfg.MODEL.BACKBONE.NAME} gives {', '.join(shapes)}"
            )
    network = pretrained_part(backbone)[1]
    if not isinstance(network, PretrainedNetwork):
        warn_of_undeclared(network, PretrainedNetwork)
    warning = pixel_warning(
        network,
        weights=cfg.MODEL.WEIGHTS,
        order=cfg.INPUT.FORMAT,
        mean=cfg.MODEL.PIXEL_MEAN,
        std=cfg.MODEL.PIXEL_STD,
    )
    if warning:
        logger.warning(warning)
    return backbone
