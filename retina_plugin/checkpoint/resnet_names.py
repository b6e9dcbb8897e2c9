"""The names of a ResNet's tensors: torchvision's, which most frameworks share, and Detectron2's."""

from __future__ import annotations

import re

_BLOCK = re.compile(r"layer(\d)\.(\d+)\.(conv|bn|downsample\.)(\d)\.(\w+)")
_OWN_BLOCK = re.compile(r"res(\d)\.(\d+)\.(conv\d|shortcut)\.(norm\.)?(\w+)")


def resnet_to_detectron2(name: str) -> str:
    """``layer1.0.bn2.bias`` -> ``res2.0.conv2.norm.bias``; names of no ResNet stay.

    The stem is ``conv1`` and ``bn1`` there, ``stem.conv1`` and ``stem.conv1.norm`` here; a block's
    ``downsample.0`` and ``.1`` are ``shortcut`` and ``shortcut.norm``.

    Source: ``torchvision.models.resnet``, whose names timm, MMDetection and MMPretrain have too;
    ``detectron2.modeling.backbone.resnet``.
    """
    match = _BLOCK.fullmatch(name)
    if match is None:
        stem = re.sub(r"^bn1\.", "stem.conv1.norm.", name)
        return re.sub(r"^conv1\.", "stem.conv1.", stem)
    stage, block, kind, index, rest = match.groups()
    layer = "shortcut" if kind == "downsample." else f"conv{index}"
    is_norm = kind == "bn" or (kind == "downsample." and index == "1")
    return f"res{int(stage) + 1}.{block}.{layer}.{'norm.' if is_norm else ''}{rest}"


def resnet_to_torchvision(name: str) -> str:
    """The way back of :func:`resnet_to_detectron2`."""
    match = _OWN_BLOCK.fullmatch(name)
    if match is None:
        stem = re.sub(r"^stem\.conv1\.norm\.", "bn1.", name)
        return re.sub(r"^stem\.conv1\.", "conv1.", stem)
    stage, block, layer, norm, rest = match.groups()
    if layer == "shortcut":
        layer = f"downsample.{1 if norm else 0}"
    elif norm:
        layer = layer.replace("conv", "bn")
    return f"layer{int(stage) - 1}.{block}.{layer}.{rest}"
