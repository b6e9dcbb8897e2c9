"""IoU, balanced L1 and distribution focal loss, sums of losses, and how much losses count."""

import dataclasses

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, pairwise_iou
from support.batches import make_batch
from support.dense_cases import make_case
from support.tiny_models import tiny_focal_cfg

from retina_plugin.modeling.coders.delta_coder import DeltaCoder
from retina_plugin.modeling.coders.integral_coder import IntegralBoxCoder
from retina_plugin.modeling.contracts import PositiveBoxes, box_dim
from retina_plugin.modeling.geometry import centreness
from retina_plugin.modeling.losses.balanced_l1_loss import BalancedL1Loss
from retina_plugin.modeling.losses.ciou_loss import CIoULoss
from retina_plugin.modeling.losses.diou_loss import DIoULoss
from retina_plugin.modeling.losses.distribution_focal_loss import DistributionFocalLoss
from retina_plugin.modeling.losses.giou_loss import GIoULoss
from retina_plugin.modeling.losses.iou_loss import IoULoss
from retina_plugin.modeling.losses.smooth_l1_loss import SmoothL1Loss
from retina_plugin.modeling.losses.sum_of_box_losses import SumOfBoxLosses
from retina_plugin.modeling.losses.weighting import LossWeighting
from retina_plugin.registry import UnknownNameError
from retina_plugin.workbench.benchmark.synchronisations import SynchronisationCounter


def boxes(count):
    corner = torch.rand(count, 2) * 80
    return torch.cat([corner, corner + 8 + torch.rand(count, 2) * 40], dim=1)


def positives(count=20, coder=None, dtype=torch.float64):
    coder = coder or DeltaCoder()
    deltas = torch.randn(count, box_dim(coder), dtype=dtype).mul(0.5).requires_grad_()
    anchors, right = boxes(count).to(dtype), boxes(count).to(dtype)
    return PositiveBoxes(deltas=deltas, anchors=anchors, gt_boxes=right, coder=coder)


class Plain:
    """Boxes as they are: ``DeltaCoder`` decodes in single precision."""

    def encode(self, anchors, boxes):
        return boxes

    def decode(self, anchors, deltas):
        return deltas


def test_iou_loss_is_one_minus_the_iou():
    found = positives(dtype=torch.float32)
    iou = pairwise_iou(Boxes(found.boxes.detach()), Boxes(found.gt_boxes)).diag()
    torch.testing.assert_close(IoULoss()(found).detach(), 1 - iou, rtol=1e-6, atol=1e-6)


def test_balanced_l1_is_continuous_and_has_the_published_gradient():
    """Libra R-CNN, equation 8: alpha ln(b |d| + 1) inside, gamma outside (beta 1)."""
    loss = BalancedL1Loss()
    error = torch.tensor([0.1, 0.5, 0.999999, 1.000001, 3.0], dtype=torch.float64)
    deltas = torch.zeros(5, 4, dtype=torch.float64)
    deltas[:, 0] = error
    deltas.requires_grad_()
    anchors = boxes(5).double()
    found = PositiveBoxes(deltas=deltas, anchors=anchors, gt_boxes=anchors, coder=DeltaCoder())
    values = loss(found)
    (gradient,) = torch.autograd.grad(values.sum(), deltas)
    b = torch.tensor(1.5 / 0.5, dtype=torch.float64).expm1()
    expected = torch.where(error < 1, 0.5 * torch.log(b * error + 1), 1.5)
    torch.testing.assert_close(gradient[:, 0], expected)
    assert (values[3] - values[2]).abs() < 1e-4


def test_distribution_focal_loss_by_hand():
    coder = IntegralBoxCoder(reg_max=4)
    found = positives(6, coder)
    loss = DistributionFocalLoss()(found)
    shares = found.deltas.detach().view(6, 4, 5).log_softmax(dim=2)
    for row, sides in enumerate(found.gt_deltas.tolist()):
        cost = 0.0
        for side, y in enumerate(sides):
            low = int(y)
            cost -= (low + 1 - y) * shares[row, side, low] + (y - low) * shares[row, side, low + 1]
        torch.testing.assert_close(loss[row].detach(), (cost / 4), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="IntegralBoxCoder"):
        DistributionFocalLoss()(positives())


LOSSES = [IoULoss(), GIoULoss(), DIoULoss(), CIoULoss(), BalancedL1Loss(), SmoothL1Loss()]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda x: type(x).__name__)
def test_gradcheck_and_no_object(loss):
    right = boxes(8).double()
    found = PositiveBoxes(
        deltas=(right + torch.randn(8, 4)).requires_grad_(),
        anchors=right,
        gt_boxes=right,
        coder=Plain(),
    )

    def of(deltas):
        return loss(dataclasses.replace(found, deltas=deltas))

    if not isinstance(loss, CIoULoss):  # whose alpha is a constant by definition
        assert torch.autograd.gradcheck(of, found.deltas)
    nothing = positives(0)
    loss(nothing).sum().backward()
    assert nothing.deltas.grad is not None


@pytest.mark.parametrize("loss", [DistributionFocalLoss(), GIoULoss()])
def test_gradcheck_of_distributions(loss):
    """In double, through the coder's expectation."""
    found = positives(4, IntegralBoxCoder(reg_max=5))

    def of(deltas):
        return loss(dataclasses.replace(found, deltas=deltas))

    assert torch.autograd.gradcheck(of, found.deltas)


@pytest.mark.parametrize("loss", [*LOSSES, DistributionFocalLoss()], ids=lambda x: type(x).__name__)
def test_no_wait_for_the_device(loss):
    coder = IntegralBoxCoder() if isinstance(loss, DistributionFocalLoss) else DeltaCoder()
    found = positives(30, coder, torch.float32)
    with SynchronisationCounter(torch.device("cpu")) as counter:
        loss(found).sum().backward()
    assert not counter.waits, counter.waits


@pytest.mark.parametrize("loss", [SmoothL1Loss(), BalancedL1Loss()], ids=lambda x: type(x).__name__)
def test_losses_of_deltas_refuse_distributions(loss):
    with pytest.raises(ValueError, match=r"IntegralBoxCoder.*BBOX_REG_LOSS_TYPE.*giou"):
        loss(positives(3, IntegralBoxCoder()))


def test_a_sum_weighs_its_terms():
    found = positives()
    terms = [GIoULoss(), BalancedL1Loss()]
    total = SumOfBoxLosses(terms=terms, weights=[2.0, 0.25])(found)
    torch.testing.assert_close(total, 2 * terms[0](found) + 0.25 * terms[1](found))


def sum_cfg(terms, weights):
    cfg = tiny_focal_cfg(BBOX_REG_LOSS_TYPE="SumOfBoxLosses")
    cfg.MODEL.RETINANET.BOX_LOSS.SumOfBoxLosses.TERMS = terms
    cfg.MODEL.RETINANET.BOX_LOSS.SumOfBoxLosses.WEIGHTS = weights
    return cfg


def test_a_sum_from_the_config(caplog):
    cfg = sum_cfg(["giou", "BalancedL1Loss"], [1.0, 2.0])
    cfg.MODEL.RETINANET.BOX_LOSS.BalancedL1Loss.GAMMA = 1.0
    loss = build_model(cfg).box_loss
    assert [type(x) for x in loss.terms] == [GIoULoss, BalancedL1Loss]
    assert loss.terms[1].gamma == 1.0 and loss.weights == (1.0, 2.0)
    assert "no effect" not in caplog.text
    with pytest.raises(UnknownNameError, match="Did you mean giou"):
        build_model(sum_cfg(["gious"], [1.0]))
    for terms, weights in (([], []), (["giou"], [])):
        with pytest.raises(ValueError, match="SumOfBoxLosses needs"):
            build_model(sum_cfg(terms, weights))


class TestWeighting:
    @pytest.fixture
    def case(self):
        case = make_case(num_classes=3, dtype=torch.float64)
        count = len(case.targets.positives)
        found = positives(count)
        return case, found, torch.rand(count, dtype=torch.float64)

    @pytest.mark.parametrize("by", ["quality", "score", "centreness"])
    def test_is_a_weighted_mean(self, case, by):
        case, found, losses = case
        at = case.targets.positives
        weights = {
            "quality": pairwise_iou(Boxes(found.boxes.detach()), Boxes(found.gt_boxes)).diag(),
            "score": case.flat()[at.image, at.anchor].sigmoid().amax(dim=1).detach(),
            "centreness": centreness(found.anchors, found.gt_boxes),
        }[by].double()
        weighting = LossWeighting(boxes_by=by, box_reg=2.0)
        count = weighting.count(case.targets, found)
        total = weighting.box_sum(losses, count, case.logits, case.targets, found)
        expected = 2 * (losses * weights).sum() / weights.sum()
        torch.testing.assert_close(total / count, expected, rtol=1e-5, atol=0)

    def test_none_is_the_plain_sum_to_the_bit(self, case):
        case, found, losses = case
        weighting = LossWeighting()
        count = weighting.count(case.targets, found)
        assert count == len(found.deltas)
        total = weighting.box_sum(losses, count, case.logits, case.targets, found)
        assert torch.equal(total, losses.sum())

    def test_counts_quality(self, case):
        case, found, _ = case
        scores = torch.rand(len(found.deltas))
        found = dataclasses.replace(found, assigned_scores=scores)
        count = LossWeighting(count="quality").count(case.targets, found)
        torch.testing.assert_close(count, scores.sum())

    @pytest.mark.parametrize("key", ["CLS", "BOX_REG"])
    def test_factor_from_the_config(self, key):
        losses = []
        for factor in (1.0, 3.0):
            torch.manual_seed(0)
            cfg = tiny_focal_cfg()
            cfg.MODEL.RETINANET.LOSS[key] = factor
            losses.append(build_model(cfg)(make_batch()))
        name = {"CLS": "loss_cls", "BOX_REG": "loss_box_reg"}[key]
        for loss in losses[0]:
            factor = 3.0 if loss == name else 1.0
            torch.testing.assert_close(losses[1][loss], losses[0][loss] * factor)

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("BOXES_BY", "qality", "Did you mean quality"),
            ("COUNT", "objects", "positives, quality"),
            ("CLS", -1.0, r"LOSS\.CLS must be 0 or more"),
        ],
    )
    def test_names_what_is_wrong(self, key, value, message):
        cfg = tiny_focal_cfg()
        cfg.MODEL.RETINANET.LOSS[key] = value
        with pytest.raises((UnknownNameError, ValueError), match=message):
            build_model(cfg)


def test_objects_weights_reach_the_boxes():
    batch = make_batch((4,), ((128, 128),))
    torch.manual_seed(0)
    model = build_model(tiny_focal_cfg())
    plain = model(batch)["loss_box_reg"]
    batch[0]["instances"].gt_weight = torch.full((4,), 2.0)
    model.normalizer.average.fill_(100.0)
    torch.testing.assert_close(model(batch)["loss_box_reg"], 2 * plain)
