"""The rule for images of N channels: equal where it can be, of the right size elsewhere."""

import pytest
import torch
import torchvision
from support.foreign_models import detectron2_resnet
from torch.nn import functional as F

from retina_plugin.checkpoint.inflation import can_inflate, inflate, inflation_note
from retina_plugin.checkpoint.mapping import map_onto


@pytest.fixture
def weight():
    torch.manual_seed(0)
    return torch.randn(16, 3, 7, 7)


@pytest.mark.parametrize("channels", [3, 6, 9])
def test_an_image_that_repeats_its_colours_gets_the_same_response(weight, channels):
    rgb = torch.randn(1, 3, 20, 20)
    many = rgb.repeat(1, channels // 3, 1, 1)
    torch.testing.assert_close(
        F.conv2d(many, inflate(weight, channels)), F.conv2d(rgb, weight), rtol=1e-4, atol=1e-4
    )


def test_one_channel_is_a_grey_image(weight):
    grey = torch.randn(1, 1, 20, 20)
    torch.testing.assert_close(
        F.conv2d(grey, inflate(weight, 1)),
        F.conv2d(grey.expand(-1, 3, -1, -1), weight),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("channels", [2, 4, 5, 8, 13])
def test_other_numbers_keep_mean_and_size(weight, channels):
    inflated = inflate(weight, channels)
    assert inflated.shape == (16, channels, 7, 7)
    # of filters that weigh the colours alike the response to a grey image is kept
    alike = weight.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    torch.testing.assert_close(inflate(alike, channels).sum(1), alike.sum(1))
    # and one that repeats its colours as far as they go gives a response of about the same size
    rgb = torch.randn(1, 3, 60, 60)
    many = rgb.repeat(1, 5, 1, 1)[:, :channels]
    ratio = F.conv2d(many, inflated).std() / F.conv2d(rgb, weight).std()
    assert 0.75 < ratio < 1.3
    assert torch.equal(inflated[:, 0], weight[:, 0] * (3 / channels))  # the file's order


def test_equals_timms_rule(weight):
    manipulate = pytest.importorskip("timm.models._manipulate")
    for channels in (1, 2, 4, 6, 7):
        assert torch.allclose(
            inflate(weight, channels), manipulate.adapt_input_conv(channels, weight)
        )


def test_which_shapes_are_those_of_a_first_convolution():
    assert can_inflate((64, 3, 7, 7), (64, 4, 7, 7))
    assert not can_inflate((64, 3, 7, 7), (64, 3, 7, 7))
    assert not can_inflate((64, 4, 7, 7), (64, 3, 7, 7))
    assert not can_inflate((64, 3, 7, 7), (32, 4, 7, 7))
    assert not can_inflate((64, 3), (64, 4))


def test_a_resnet_for_four_bands():
    network = detectron2_resnet(18, channels=4)
    given = torchvision.models.resnet18().state_dict()
    mapped = map_onto(network, given)
    network.load_state_dict(mapped.tensors)
    assert torch.equal(network.stem.conv1.weight, inflate(given["conv1.weight"], 4))
    assert mapped.notes == [inflation_note("stem.conv1.weight", 4)]
    assert "3/4" in mapped.notes[0]
    assert "sum" in inflation_note("stem.conv1.weight", 1)
