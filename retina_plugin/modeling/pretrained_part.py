"""The part of a backbone that pretrained weights are for."""

from __future__ import annotations

from detectron2.modeling.backbone import SimpleFeaturePyramid
from torch import nn

BACKBONE = "backbone."


def pretrained_part(backbone: nn.Module) -> tuple[str, nn.Module]:
    """What parameters' names begin with there, and the network.

    ``bottom_up`` of an FPN, also of one within another neck, ``net`` of a
    ``SimpleFeaturePyramid``, else all of the backbone.
    """
    prefix = ""
    while True:
        if isinstance(getattr(backbone, "bottom_up", None), nn.Module):
            prefix, backbone = f"{prefix}bottom_up.", backbone.bottom_up
        elif isinstance(backbone, SimpleFeaturePyramid):
            prefix, backbone = f"{prefix}net.", backbone.net
        else:
            return prefix, backbone


def pretrained_part_of_detector(model: nn.Module) -> tuple[str, nn.Module | None]:
    """:func:`pretrained_part` of a whole detector's backbone, by the detector's parameter names.

    The network is None where the model has no backbone.
    """
    backbone = getattr(model, "backbone", None)
    if backbone is None:
        return BACKBONE, None
    prefix, network = pretrained_part(backbone)
    return BACKBONE + prefix, network
