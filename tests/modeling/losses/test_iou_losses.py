"""GIoU, DIoU and CIoU losses against torchvision's, and by their geometry."""

import pytest
import torch
from torchvision import ops

from retina_plugin.modeling.coders.delta_coder import DeltaCoder
from retina_plugin.modeling.contracts import PositiveBoxes
from retina_plugin.modeling.losses.ciou_loss import CIoULoss
from retina_plugin.modeling.losses.diou_loss import DIoULoss
from retina_plugin.modeling.losses.giou_loss import GIoULoss

LOSSES = {
    GIoULoss: ops.generalized_box_iou_loss,
    DIoULoss: ops.distance_box_iou_loss,
    CIoULoss: ops.complete_box_iou_loss,
}
BOUNDS = {GIoULoss: 2, DIoULoss: 2, CIoULoss: 3}


def random_boxes(count):
    corner = torch.rand(count, 2) * 100
    return torch.cat([corner, corner + 5 + torch.rand(count, 2) * 60], dim=1)


def positives(anchors, gt_boxes, deltas):
    return PositiveBoxes(deltas=deltas, anchors=anchors, gt_boxes=gt_boxes, coder=DeltaCoder())


def predicting(boxes, gt_boxes):
    """Positives whose predicted boxes are ``boxes``."""
    anchors = random_boxes(len(boxes))
    return positives(anchors, gt_boxes, DeltaCoder().encode(anchors, boxes).requires_grad_())


@pytest.mark.parametrize("loss", LOSSES)
def test_equals_torchvision(loss):
    found = predicting(random_boxes(200), random_boxes(200))
    ours = loss()(found)
    theirs = LOSSES[loss](found.boxes, found.gt_boxes)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    (got,) = torch.autograd.grad(ours.sum(), found.deltas, retain_graph=True)
    (want,) = torch.autograd.grad(theirs.sum(), found.deltas)
    assert (got - want).norm() <= 1e-4 * want.norm()


@pytest.mark.parametrize("loss", LOSSES)
def test_one_value_per_positive_within_its_bounds(loss):
    values = loss()(predicting(random_boxes(500), random_boxes(500)))
    assert values.shape == (500,)
    assert values.min() >= 0
    assert values.max() <= BOUNDS[loss]


@pytest.mark.parametrize("loss", LOSSES)
def test_the_right_box_costs_nothing(loss):
    boxes = random_boxes(50)
    torch.testing.assert_close(loss()(predicting(boxes, boxes)), torch.zeros(50), rtol=0, atol=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_boxes_that_do_not_touch_are_pulled_together(loss):
    gt_box = torch.tensor([[0.0, 0.0, 20.0, 20.0]])
    near, far = (torch.tensor([[x, 0.0, x + 20, 20.0]]) for x in (30.0, 60.0))
    assert 1 < loss()(predicting(near, gt_box)) < loss()(predicting(far, gt_box))
    found = predicting(near, gt_box)
    loss()(found).sum().backward()
    assert found.deltas.grad[0, 0] > 0  # a smaller dx moves the box to the left, and costs less


def test_only_ciou_sees_the_aspect_ratio():
    gt_box = torch.tensor([[0.0, 0.0, 40.0, 10.0]])
    upright, lying = torch.tensor([[15.0, -15.0, 25.0, 25.0]]), gt_box * 0.5 + 2.5
    other_ratio = predicting(upright, gt_box)
    assert CIoULoss()(other_ratio) > DIoULoss()(other_ratio) + 0.01
    same_ratio = predicting(lying, gt_box)
    assert CIoULoss()(same_ratio).item() == pytest.approx(DIoULoss()(same_ratio).item(), abs=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_shift_of_both_boxes_changes_nothing(loss):
    boxes, gt_boxes = random_boxes(50), random_boxes(50)
    here, there = predicting(boxes, gt_boxes), predicting(boxes + 64, gt_boxes + 64)
    torch.testing.assert_close(loss()(here), loss()(there), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_no_positives_have_gradients(loss):
    deltas = torch.zeros(0, 4, requires_grad=True)
    values = loss()(positives(torch.zeros(0, 4), torch.zeros(0, 4), deltas))
    assert values.shape == (0,)
    values.sum().backward()
    assert deltas.grad.shape == (0, 4)


@pytest.mark.parametrize("loss", LOSSES)
def test_wild_deltas_stay_finite(loss):
    anchors = random_boxes(4)
    wild = torch.tensor([[50.0, 0, 0, 0], [0, -50, 0, 0], [0, 0, 50, 50], [0, 0, -8, -8]])
    found = positives(anchors, random_boxes(4), wild.requires_grad_())
    loss()(found).sum().backward()
    assert found.deltas.grad.isfinite().all()
