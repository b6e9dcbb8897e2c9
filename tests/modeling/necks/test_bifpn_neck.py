"""BiFPN: the fusion by hand, a layer written out, and what it takes."""

import pytest
import torch
from support.tiny_necks import C, make_neck
from torch.nn import functional as F

from retina_plugin.modeling.necks.bifpn_neck import BiFPNLayer, WeightedFusion


def constant(value, size=1):
    return torch.full((1, 1, size, size), float(value))


def test_the_fusion_by_hand():
    """Weights 1, -5 and 3 count as 1, 0 and 3: (1 * 2 + 3 * 6) / 4 = 5, all but 1e-4 of 4."""
    fusion = WeightedFusion(num_inputs=3, channels=1, norm="")
    with torch.no_grad():
        fusion.weight.copy_(torch.tensor([1.0, -5.0, 3.0]))
        fusion.conv.depthwise.weight.zero_()[:, :, 1, 1] = 2.0
        fusion.conv.pointwise.weight.fill_(10.0)
        fusion.conv.pointwise.bias.fill_(0.5)
    mean = 20 / 4.0001
    silu = mean / (1 + torch.exp(torch.tensor(-mean)))
    found = fusion(constant(2), constant(100), constant(6))
    torch.testing.assert_close(found, (20 * silu + 0.5).view(1, 1, 1, 1))


def test_the_norm_comes_last():
    fusion = WeightedFusion(num_inputs=2, channels=C, norm="BN")
    found = fusion(torch.randn(4, C, 8, 8), torch.randn(4, C, 8, 8))
    torch.testing.assert_close(found.mean((0, 2, 3)), torch.zeros(C), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std((0, 2, 3)), torch.ones(C), atol=1e-2, rtol=0)


def test_a_layer_is_the_paper():
    """Figure 3 (d) and the equations of section 3.3, for five levels whose sizes round up."""
    layer = BiFPNLayer(num_levels=5, channels=C, norm="GN")
    with torch.no_grad():
        for fusion in layer.modules():
            if isinstance(fusion, WeightedFusion):
                fusion.weight.uniform_(0.1, 2)
    sizes = ((20, 36), (10, 18), (5, 9), (3, 5), (2, 3))
    p3, p4, p5, p6, p7 = given = [torch.randn(2, C, *size) for size in sizes]

    def up(x, like):
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return x[:, :, : like.shape[2], : like.shape[3]]

    def down(x):
        return F.max_pool2d(x, 3, 2, 1)

    down6, down5, down4, down3 = layer.top_down
    up4, up5, up6, up7 = layer.bottom_up
    t6 = down6(p6, up(p7, p6))
    t5 = down5(p5, up(t6, p5))
    t4 = down4(p4, up(t5, p4))
    o3 = down3(p3, up(t4, p3))
    o4 = up4(p4, t4, down(o3))
    o5 = up5(p5, t5, down(o4))
    o6 = up6(p6, t6, down(o5))
    o7 = up7(p7, down(o6))
    for found, expected in zip(layer(given), (o3, o4, o5, o6, o7), strict=True):
        torch.testing.assert_close(found, expected)


def test_two_levels():
    layer = BiFPNLayer(num_levels=2, channels=C, norm="GN")
    fine, coarse = layer([torch.randn(1, C, 4, 4), torch.randn(1, C, 2, 2)])
    assert fine.shape == (1, C, 4, 4) and coarse.shape == (1, C, 2, 2)


@pytest.mark.parametrize("repeats", [1, 2])
def test_repeats(repeats):
    neck = make_neck("BiFPNNeck", repeats=repeats)
    assert len(neck.layers) == repeats
    # each layer has four nodes of two weights down, three of three and one of two up
    numbers = sum(m.weight.numel() for m in neck.modules() if isinstance(m, WeightedFusion))
    assert numbers == repeats * (5 * 2 + 3 * 3)


def test_no_layer():
    with pytest.raises(ValueError, match=r"BiFPNNeck.REPEATS must be 1 or more, got 0"):
        make_neck("BiFPNNeck", repeats=0)
