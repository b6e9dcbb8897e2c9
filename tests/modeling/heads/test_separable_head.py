"""What separable convolutions make of the paper's head."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from torch import nn

from retina_plugin.modeling.heads.focal_retinanet_head import FocalRetinaNetHead
from retina_plugin.modeling.heads.separable_head import SeparableHead
from retina_plugin.registry import UnknownNameError

C = 64


def make_head(head=SeparableHead, **arguments):
    settings = {
        "input_shape": [ShapeSpec(channels=C)] * 2,
        "num_classes": 20,
        "conv_dims": [C] * 4,
        "num_anchors": 9,
    }
    return head(**{**settings, **arguments})


def test_every_convolution_is_depthwise_or_pointwise():
    for counts in (9, [9, 3]):
        convs = [m for m in make_head(num_anchors=counts).modules() if isinstance(m, nn.Conv2d)]
        for conv in convs:
            if conv.kernel_size == (3, 3):
                assert conv.groups == conv.in_channels == conv.out_channels
            else:
                assert conv.kernel_size == (1, 1)
        assert len(convs) == 2 * (4 + 4 + 2 * (1 if counts == 9 else 2))


def test_a_sixth_of_the_parameters():
    ours, papers = (
        sum(p.numel() for p in make_head(head).parameters())
        for head in (SeparableHead, FocalRetinaNetHead)
    )
    assert ours < papers / 6


@pytest.mark.parametrize("norm", ["", "GN"])
def test_the_signal_survives_the_tower(norm):
    """Of unit inputs something of the order of one is left, so that the first steps learn."""
    tower = make_head(norm=norm).cls_subnet
    assert 0.1 < tower(torch.randn(2, C, 16, 16)).std() < 3


@pytest.mark.parametrize(
    ("activation", "kind"),
    [("relu", nn.ReLU), ("relu6", nn.ReLU6), ("silu", nn.SiLU), ("hardswish", nn.Hardswish)],
)
def test_activation(activation, kind):
    head = make_head(activation=activation, norm="GN")
    for tower in (head.cls_subnet, head.bbox_subnet):
        assert [type(m) for m in tower][2::3] == [kind] * 4


def test_unknown_activation():
    key = "MODEL.RETINANET.HEAD.SeparableHead.ACTIVATION"
    with pytest.raises(UnknownNameError, match=f"{key}: 'swish'.*hardswish"):
        make_head(activation="swish")
