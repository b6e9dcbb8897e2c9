"""The delta coder against torchvision's and Detectron2's, and against itself."""

import math

import pytest
import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from torchvision.models.detection._utils import BoxCoder

from retina_plugin.modeling.coders.delta_coder import DeltaCoder

WEIGHTS = [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)]


def random_boxes(count):
    corner = torch.rand(count, 2) * 200 - 50
    return torch.cat([corner, corner + 10 + torch.rand(count, 2) * 100], dim=1)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_equals_torchvision(weights):
    coder, theirs = DeltaCoder(weights=weights), BoxCoder(weights)
    anchors, boxes, deltas = random_boxes(300), random_boxes(300), torch.randn(300, 4)
    torch.testing.assert_close(
        coder.encode(anchors, boxes), theirs.encode_single(boxes, anchors), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(
        coder.decode(anchors, deltas), theirs.decode_single(deltas, anchors), rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("weights", WEIGHTS)
def test_equals_detectron2(weights):
    coder, theirs = DeltaCoder(weights=weights), Box2BoxTransform(weights)
    anchors, boxes, deltas = random_boxes(300), random_boxes(300), torch.randn(300, 4) * 3
    assert torch.equal(coder.encode(anchors, boxes), theirs.get_deltas(anchors, boxes))
    assert torch.equal(coder.decode(anchors, deltas), theirs.apply_deltas(deltas, anchors))


@pytest.mark.parametrize("weights", WEIGHTS)
def test_decode_inverts_encode(weights):
    coder = DeltaCoder(weights=weights)
    anchors, boxes = random_boxes(300), random_boxes(300)
    decoded = coder.decode(anchors, coder.encode(anchors, boxes))
    torch.testing.assert_close(decoded, boxes, rtol=1e-4, atol=1e-3)


def test_no_deltas_are_the_anchor():
    anchors = random_boxes(10)
    decoded = DeltaCoder().decode(anchors, torch.zeros(10, 4))
    torch.testing.assert_close(decoded, anchors)


def test_sizes_are_clamped():
    anchor = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    box = DeltaCoder().decode(anchor, torch.tensor([[0.0, 0.0, 1e4, math.log(1000 / 16)]]))[0]
    assert (box[2] - box[0]).item() == pytest.approx(1000)
    assert (box[3] - box[1]).item() == pytest.approx(1000)


def test_no_boxes():
    coder, none = DeltaCoder(), torch.zeros(0, 4)
    assert coder.encode(none, none).shape == (0, 4)
    assert coder.decode(none, none).shape == (0, 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_boxes_are_in_single_precision(dtype):
    """fp16 has steps of a pixel beyond 2,048."""
    anchors = random_boxes(10) + 3000
    deltas = torch.zeros(10, 4, dtype=dtype)
    decoded = DeltaCoder().decode(anchors, deltas)
    assert decoded.dtype == torch.float32
    torch.testing.assert_close(decoded, anchors)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1.0, 1.0, 1.0, 0.0), (-1.0, 1.0, 1.0, 1.0)])
def test_wrong_weights(weights):
    with pytest.raises(ValueError, match="BBOX_REG_WEIGHTS"):
        DeltaCoder(weights=weights)
