"""Boxes as distributions: there and back."""

import pytest
import torch
from detectron2.modeling import build_model
from support.batches import make_batch
from support.tiny_models import tiny_focal_cfg

from retina_plugin.modeling.coders.integral_coder import IntegralBoxCoder

ANCHORS = torch.tensor([[0.0, 0.0, 64.0, 64.0], [10.0, 20.0, 42.0, 148.0]])  # units of 8 pixels


def certain(distances, coder):
    """Logits of the two-point distributions whose expectations are these distances."""
    low = distances.floor().long()
    shares = torch.zeros(*distances.shape, coder.reg_max + 1)
    shares.scatter_(2, low[..., None], (1 - (distances - low))[..., None])
    shares.scatter_(2, low[..., None] + 1, (distances - low)[..., None])
    return shares.clamp(min=1e-12).log().flatten(1)


def test_by_hand():
    coder = IntegralBoxCoder()
    boxes = torch.tensor([[8.0, 24.0, 40.0, 64.0], [18.0, 44.0, 34.0, 92.0]])
    expected = torch.tensor([[3.0, 1.0, 1.0, 4.0], [1.0, 5.0, 1.0, 1.0]])
    torch.testing.assert_close(coder.encode(ANCHORS, boxes), expected)
    torch.testing.assert_close(coder.decode(ANCHORS, certain(expected, coder)), boxes)


def test_there_and_back():
    coder = IntegralBoxCoder(reg_max=8, unit=0.25)
    centre = torch.tensor([[32.0, 32.0], [26.0, 84.0]])
    boxes = torch.cat([centre - torch.rand(2, 2) * 60, centre + torch.rand(2, 2) * 60], dim=1)
    found = coder.decode(ANCHORS, certain(coder.encode(ANCHORS, boxes), coder))
    torch.testing.assert_close(found, boxes, rtol=1e-4, atol=1e-3)


def test_what_is_out_of_reach_is_as_far_as_can_be():
    coder = IntegralBoxCoder(reg_max=4)
    far = torch.tensor([[-500.0, 31.0, 33.0, 20.0]])  # the bottom side is above the centre
    found = coder.encode(ANCHORS[:1], far)[0]
    torch.testing.assert_close(found, torch.tensor([3.99, 0.125, 0.125, 0.0]))


def test_decodes_half_precision_in_fp32():
    coder = IntegralBoxCoder()
    assert coder.decode(ANCHORS, torch.randn(2, coder.dim).half()).dtype == torch.float32
    assert coder.decode(ANCHORS[:0], torch.randn(0, coder.dim)).shape == (0, 4)


@pytest.mark.parametrize("sizes", [None, [[16], [32, 40], [64], [128], [256]]])
def test_detector_with_distributions(sizes):
    """Also where levels have different numbers of anchors."""
    cfg = tiny_focal_cfg(BBOX_REG_LOSS_TYPE="SumOfBoxLosses")
    if sizes is not None:
        cfg.MODEL.ANCHOR_GENERATOR.SIZES = sizes
    cfg.MODEL.RETINANET.BOX_CODER.NAME = "IntegralBoxCoder"
    cfg.MODEL.RETINANET.BOX_CODER.IntegralBoxCoder.REG_MAX = 6
    cfg.MODEL.RETINANET.BOX_LOSS.SumOfBoxLosses.TERMS = ["giou", "DistributionFocalLoss"]
    cfg.MODEL.RETINANET.BOX_LOSS.SumOfBoxLosses.WEIGHTS = [2.0, 0.25]
    model = build_model(cfg)
    losses = model(make_batch())
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.head.parameters())
    with torch.no_grad():
        assert len(model.eval()(make_batch())) == 2


@pytest.mark.parametrize(("key", "value"), [("reg_max", 0), ("reg_max", 1.5), ("unit", 0)])
def test_names_the_key(key, value):
    with pytest.raises(ValueError, match=rf"IntegralBoxCoder\.{key.upper()}"):
        IntegralBoxCoder(**{key: value})
