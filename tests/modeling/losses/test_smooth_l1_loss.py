"""Smooth L1 against PyTorch's, and what differs from it."""

import pytest
import torch
from torch.nn import functional as F

from retina_plugin.modeling.coders.delta_coder import DeltaCoder
from retina_plugin.modeling.contracts import PositiveBoxes
from retina_plugin.modeling.losses.smooth_l1_loss import SmoothL1Loss


def positives(count, scale=1.0):
    corner = torch.rand(count, 2) * 100
    anchors = torch.cat([corner, corner + 20], dim=1)
    boxes = torch.cat([corner + 3, corner + 10 + torch.rand(count, 2) * 40], dim=1)
    deltas = (torch.randn(count, 4) * scale).requires_grad_()
    return PositiveBoxes(deltas=deltas, anchors=anchors, gt_boxes=boxes, coder=DeltaCoder())


@pytest.mark.parametrize("beta", [0.05, 0.1, 1.0, 3.0])
def test_equals_torch(beta):
    found = positives(100)
    ours = SmoothL1Loss(beta=beta)(found)
    theirs = F.smooth_l1_loss(found.deltas, found.gt_deltas, beta=beta, reduction="none").sum(1)
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(x.sum(), found.deltas)[0] for x in (ours, theirs)]
    torch.testing.assert_close(*gradients)


def test_beta_zero_is_l1():
    found = positives(100)
    torch.testing.assert_close(
        SmoothL1Loss()(found), (found.deltas - found.gt_deltas).abs().sum(dim=1)
    )


def test_small_errors_are_squared():
    beta = 10.0
    found = positives(50, scale=0.1)
    squares = (found.deltas - found.gt_deltas).square().sum(dim=1) / (2 * beta)
    torch.testing.assert_close(SmoothL1Loss(beta=beta)(found), squares)


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_no_positives_have_gradients(beta):
    found = positives(0)
    values = SmoothL1Loss(beta=beta)(found)
    assert values.shape == (0,)
    values.sum().backward()
    assert found.deltas.grad.shape == (0, 4)


def test_wrong_beta():
    with pytest.raises(ValueError, match=r"SMOOTH_L1_LOSS_BETA.*-0.1"):
        SmoothL1Loss(beta=-0.1)
