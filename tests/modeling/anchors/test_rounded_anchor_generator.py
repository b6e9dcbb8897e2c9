"""torchvision's own anchors, in Detectron2's order."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_anchor_generator
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import _default_anchorgen

from retina_plugin.checkpoint.anchor_order import ratios_first
from retina_plugin.config.config_file import load_config
from retina_plugin.modeling.anchors.rounded_anchor_generator import RoundedAnchorGenerator

STRIDES = [8, 16, 32, 64, 128]


def test_the_preset_is_torchvisions_default():
    cfg = load_config("configs/_base_/anchors/torchvision.yaml")
    ours = build_anchor_generator(cfg, [ShapeSpec(channels=1, stride=s) for s in STRIDES])
    assert isinstance(ours, RoundedAnchorGenerator)
    order = ratios_first(num_ratios=3, num_sizes=3)
    for own, theirs in zip(ours.cell_anchors, _default_anchorgen().cell_anchors, strict=True):
        assert torch.equal(own, theirs[order])


@pytest.mark.parametrize("ratios", [(1.0,), (0.5, 1.0), (0.3, 0.7, 1.4, 3.1)])
def test_any_sizes_and_ratios(ratios):
    sizes = (7, 21, 33)
    ours = RoundedAnchorGenerator(sizes=[sizes], aspect_ratios=[ratios], strides=[8])
    (theirs,) = AnchorGenerator((sizes,), (ratios,)).cell_anchors
    order = ratios_first(len(ratios), len(sizes))
    (own,) = ours.cell_anchors
    assert torch.equal(own, theirs[order])
