"""A block of branches against the branches, and against the convolution that it becomes."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from retina_plugin.modeling.layers.rep_conv import RepConv2d

CASES = [(6, 6, 1), (6, 6, 2), (6, 4, 1), (6, 8, 2)]


def block(in_channels, out_channels, stride, norm="BN"):
    """With statistics, factors and shifts that are not the initial ones, in double."""
    made = RepConv2d(
        in_channels=in_channels, out_channels=out_channels, stride=stride, norm=norm
    ).double()
    for norm_ in (made.conv3x3.norm, made.conv1x1.norm, made.identity):
        if norm_ is not None:
            norm_.weight.data.uniform_(-2, 2)
            norm_.bias.data.normal_()
            norm_.running_mean.normal_()
            norm_.running_var.uniform_(0.01, 3)
    return made


@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
@pytest.mark.parametrize("case", CASES)
def test_the_convolution_that_it_becomes(case, norm):
    made = block(*case, norm=norm).eval()
    conv = made.for_inference()
    assert type(conv).__mro__[1] is nn.Conv2d and conv.norm is None
    x = torch.randn(2, case[0], 9, 12, dtype=torch.double)
    torch.testing.assert_close(conv(x), made(x), rtol=1e-10, atol=1e-10)


def test_the_branches():
    made = block(4, 4, 1).train()
    x = torch.randn(3, 4, 5, 6, dtype=torch.double)

    def normed(maps, norm):
        mean, var = maps.mean((0, 2, 3), True), maps.var((0, 2, 3), False, True)
        return (maps - mean) * (var + 1e-5).rsqrt() * norm.weight[:, None, None] + norm.bias[
            :, None, None
        ]

    total = (
        normed(F.conv2d(x, made.conv3x3.weight, padding=1), made.conv3x3.norm)
        + normed(F.conv2d(x, made.conv1x1.weight), made.conv1x1.norm)
        + normed(x, made.identity)
    )
    torch.testing.assert_close(made(x), total.clamp(min=0))


@pytest.mark.parametrize("case", CASES)
def test_the_identity_is_there_where_it_fits(case):
    assert (RepConv2d(in_channels=case[0], out_channels=case[1], stride=case[2]).identity is None) \
        is (case != (6, 6, 1))  # fmt: skip


def test_its_parameters_stay_its_own():
    made = block(6, 6, 1).eval()
    conv = made.for_inference()
    conv.weight.data.zero_()
    conv.bias.data.zero_()
    assert all(p.abs().sum() > 0 for p in made.parameters())
    assert made.conv3x3.weight.requires_grad


@pytest.mark.parametrize("norm", ["", "GN", "LN", None])
def test_norms_that_depend_on_their_input(norm):
    with pytest.raises(ValueError, match=r"the key must be BN, SyncBN or FrozenBN, got "):
        RepConv2d(in_channels=32, out_channels=32, norm=norm, key="the key")
