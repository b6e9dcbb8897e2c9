"""The names of the tensors of torchvision's RetinaNets and of ours."""

from __future__ import annotations

import re

from retina_plugin.checkpoint.resnet_names import resnet_to_detectron2, resnet_to_torchvision

FIRST_LEVEL = 3
_TOWERS = {"classification_head": "cls_subnet", "regression_head": "bbox_subnet"}
OUTPUTS = {
    "classification_head.cls_logits": "cls_score",
    "regression_head.bbox_reg": "bbox_pred",
}
_PYRAMID = {"inner_blocks": "fpn_lateral", "layer_blocks": "fpn_output"}


def own_name(name: str, step: int) -> str | None:
    """Of a tensor of version 2's names; ``step``: modules of a tower to the next convolution."""
    if name.startswith("backbone.body."):
        resnet = name.removeprefix("backbone.body.")
        own = resnet_to_detectron2(resnet)
        return None if own == resnet else f"backbone.bottom_up.{own}"
    if match := re.fullmatch(r"backbone\.fpn\.(inner|layer)_blocks\.([012])\.0\.(\w+)", name):
        kind, index, leaf = match.groups()
        return f"backbone.{_PYRAMID[f'{kind}_blocks']}{int(index) + FIRST_LEVEL}.{leaf}"
    if match := re.fullmatch(r"backbone\.fpn\.extra_blocks\.(p[67]\.\w+)", name):
        return f"backbone.top_block.{match[1]}"
    if match := re.fullmatch(r"head\.(\w+_head)\.conv\.(\d+)\.([01])\.(\w+)", name):
        head, index, part, leaf = match.groups()
        return f"head.{_TOWERS[head]}.{int(index) * step + int(part)}.{leaf}"
    if match := re.fullmatch(r"head\.(\w+\.\w+)\.(\w+)", name):
        output = OUTPUTS.get(match[1])
        return output and f"head.{output}.{match[2]}"
    return None


def torchvision_name(name: str, step: int) -> str | None:
    """The way back of :func:`own_name`."""
    if name.startswith("backbone.bottom_up."):
        own = name.removeprefix("backbone.bottom_up.")
        resnet = resnet_to_torchvision(own)
        return None if own == resnet else f"backbone.body.{resnet}"
    if match := re.fullmatch(r"backbone\.(fpn_lateral|fpn_output)([345])\.(\w+)", name):
        kind = {own: other for other, own in _PYRAMID.items()}[match[1]]
        return f"backbone.fpn.{kind}.{int(match[2]) - FIRST_LEVEL}.0.{match[3]}"
    if match := re.fullmatch(r"backbone\.top_block\.(p[67]\.\w+)", name):
        return f"backbone.fpn.extra_blocks.{match[1]}"
    if match := re.fullmatch(r"head\.(\w+_subnet)\.(\d+)\.(\w+)", name):
        head = {own: other for other, own in _TOWERS.items()}[match[1]]
        index, part = divmod(int(match[2]), step)
        return f"head.{head}.conv.{index}.{part}.{match[3]}"
    if match := re.fullmatch(r"head\.(cls_score|bbox_pred)\.(\w+)", name):
        output = {own: other for other, own in OUTPUTS.items()}[match[1]]
        return f"head.{output}.{match[2]}"
    return None


def of_version_2(name: str) -> str:
    """torchvision's own upgrade of names, of its published file of version 1 among others."""
    name = re.sub(r"(inner|layer)_blocks\.(\d)\.(weight|bias)$", r"\1_blocks.\2.0.\3", name)
    return re.sub(
        r"_head\.conv\.(\d)\.(weight|bias)$",
        lambda match: f"_head.conv.{int(match[1]) // 2}.0.{match[2]}",
        name,
    )
