"""The focal loss by its properties, and against fvcore's."""

import math

import pytest
import torch
from fvcore.nn import sigmoid_focal_loss
from support.dense_cases import make_case
from torch.nn import functional as F

from retina_plugin.modeling.contracts import IGNORE
from retina_plugin.modeling.losses.focal_loss import (
    FocalLoss,
    focal_background,
    focal_loss,
    focal_objects,
)

GAMMAS = [0.0, 0.5, 1.0, 2.0, 5.0]


def focal_by_definition(logits, one_hot, alpha, gamma):
    """Equation 5 of the paper as it stands there, in the logits' own precision."""
    p = logits.sigmoid()
    p_t = torch.where(one_hot > 0, p, 1 - p)
    log_p_t = torch.where(one_hot > 0, F.logsigmoid(logits), F.logsigmoid(-logits))
    alpha_t = torch.where(one_hot > 0, alpha, 1 - alpha) if alpha >= 0 else 1.0
    return -alpha_t * (1 - p_t) ** gamma * log_p_t


def same_loss_and_gradients(case, alpha, gamma, reference, rtol):
    ours = focal_loss(case.logits, case.targets, alpha=alpha, gamma=gamma)
    theirs = reference(case.flat()[case.valid()], case.one_hot()[case.valid()]).sum()
    torch.testing.assert_close(ours.double(), theirs.double(), rtol=rtol, atol=0)
    for got, expected in zip(case.gradients(ours), case.gradients(theirs), strict=True):
        assert (got - expected).norm() <= rtol * 10 * expected.norm() + 1e-12


@pytest.mark.parametrize("num_classes", [1, 3, 80])
@pytest.mark.parametrize("alpha", [-1, 0.0, 0.25, 1.0])
@pytest.mark.parametrize("gamma", GAMMAS)
def test_equals_fvcore(gamma, alpha, num_classes):
    case = make_case(num_classes=num_classes)

    def reference(logits, one_hot):
        return sigmoid_focal_loss(logits, one_hot, alpha=alpha, gamma=gamma)

    same_loss_and_gradients(case, alpha, gamma, reference, rtol=2e-6)


@pytest.mark.parametrize("num_classes", [1, 3])
@pytest.mark.parametrize("alpha", [-1, 0.25])
@pytest.mark.parametrize("gamma", GAMMAS)
def test_equals_the_definition_in_double(gamma, alpha, num_classes):
    """fvcore's computes in single precision always; the equation itself does not."""
    case = make_case(num_classes=num_classes, dtype=torch.float64)

    def reference(logits, one_hot):
        return focal_by_definition(logits, one_hot, alpha, gamma)

    same_loss_and_gradients(case, alpha, gamma, reference, rtol=1e-11)
    assert focal_loss(case.logits, case.targets).dtype == torch.float64


def test_gamma_zero_without_alpha_is_binary_cross_entropy():
    def reference(logits, one_hot):
        return F.binary_cross_entropy_with_logits(logits, one_hot, reduction="none")

    same_loss_and_gradients(make_case(), -1, 0.0, reference, rtol=2e-6)


def test_half_of_alpha_halves():
    case = make_case(dtype=torch.float64)
    plain = focal_loss(case.logits, case.targets, alpha=-1)
    torch.testing.assert_close(focal_loss(case.logits, case.targets, alpha=0.5), plain / 2)


def test_larger_gamma_is_a_smaller_loss():
    case = make_case()
    losses = [focal_loss(case.logits, case.targets, gamma=gamma).item() for gamma in GAMMAS]
    assert losses == sorted(losses, reverse=True)
    assert len(set(losses)) == len(losses)


@pytest.mark.parametrize("alpha", [-1, 0.25])
@pytest.mark.parametrize("gamma", GAMMAS)
def test_gradcheck(gamma, alpha):
    case = make_case(
        num_classes=2,
        counts=(2, 1),
        sizes=((3, 3), (1, 1)),
        dtype=torch.float64,
        positive=0.4,
        ignored=0.3,
    )
    assert len(case.targets.positives) > 1
    assert len(case.targets.ignored) > 1

    def loss(*logits):
        return focal_loss(logits, case.targets, alpha=alpha, gamma=gamma)

    assert torch.autograd.gradcheck(loss, tuple(case.logits))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_terms_gradcheck(gamma):
    x = torch.linspace(-8, 8, 33, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: focal_objects(x, 0.25, gamma), x)
    definition = focal_by_definition(x, torch.zeros_like(x), 0.25, gamma).sum()
    (expected,) = torch.autograd.grad(definition, x)
    gradient = x.detach().clone()
    total = focal_background(gradient, 0.25, gamma)
    torch.testing.assert_close(gradient, expected)
    torch.testing.assert_close(total, definition.detach())


def test_an_exponent_per_object():
    """A tensor of exponents, as losses with a gamma for each object need it."""
    x = torch.randn(5, dtype=torch.float64)
    gamma = torch.tensor([0.0, 0.5, 1.0, 2.0, 5.0], dtype=torch.float64)
    one_by_one = [focal_objects(value, 0.25, g.item()) for value, g in zip(x, gamma, strict=True)]
    torch.testing.assert_close(focal_objects(x, 0.25, gamma), torch.stack(one_by_one))


def test_all_ignored_is_exactly_zero():
    case = make_case(positive=0, ignored=1)
    assert (case.targets.labels == IGNORE).all()
    loss = focal_loss(case.logits, case.targets)
    assert loss.item() == 0
    for gradient in case.gradients(loss):
        assert gradient.count_nonzero() == 0


def test_an_ignored_anchor_does_not_matter():
    case = make_case()
    before = focal_loss(case.logits, case.targets)
    selection = case.targets.ignored
    with torch.no_grad():
        for level, map_ in enumerate(case.logits):
            image, channel, y, x = selection.index_level(level, map_, case.targets.num_classes)
            for k in range(case.targets.num_classes):
                map_[image, channel + k, y, x] = 1e4
    after = focal_loss(case.logits, case.targets)
    torch.testing.assert_close(after, before, rtol=1e-6, atol=0)


def test_no_positives_has_gradients():
    case = make_case(positive=0)
    assert len(case.targets.positives) == 0
    loss = focal_loss(case.logits, case.targets)
    assert loss > 0
    assert all(gradient.norm() > 0 for gradient in case.gradients(loss))


def test_all_positive():
    case = make_case(positive=1, ignored=0)
    assert len(case.targets.positives) == case.targets.labels.numel()

    def reference(logits, one_hot):
        return sigmoid_focal_loss(logits, one_hot, alpha=0.25, gamma=2)

    same_loss_and_gradients(case, 0.25, 2.0, reference, rtol=2e-6)


def test_no_cells():
    """A level of no cells, as a map of zero height has."""
    case = make_case(counts=(2, 1), sizes=((3, 3), (0, 4)))
    loss = focal_loss(case.logits, case.targets)
    alone = focal_loss(case.logits[:1], case.targets)
    assert loss == alone
    assert case.gradients(loss)[1].shape == case.logits[1].shape
    empty = make_case(counts=(2,), sizes=((0, 0),))
    assert focal_loss(empty.logits, empty.targets).item() == 0


@pytest.mark.parametrize("logit", [-300.0, -100.0, -88.0, -20.0, 0.0, 20.0, 88.0, 100.0, 300.0])
@pytest.mark.parametrize("gamma", GAMMAS)
def test_extreme_logits_stay_finite(gamma, logit):
    case = make_case()
    with torch.no_grad():
        for x in case.logits:
            x.fill_(logit)
    loss = focal_loss(case.logits, case.targets, gamma=gamma)
    assert math.isfinite(loss.item())
    for gradient in case.gradients(loss):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("gamma", GAMMAS)
def test_the_surest_background_costs_nothing(gamma):
    """At -inf, and next to it, the loss of a background entry and its gradient are 0."""
    lowest = torch.tensor([-torch.inf, torch.finfo(torch.float32).min, -1e30])
    assert focal_background(lowest, 0.25, gamma) == 0
    assert lowest.tolist() == [0, 0, 0]


def test_channels_last():
    case = make_case(num_classes=5, counts=(3, 2, 3, 1))
    loss = focal_loss(case.logits, case.targets)
    expected = case.gradients(loss)
    case.logits = [
        x.detach().to(memory_format=torch.channels_last).requires_grad_() for x in case.logits
    ]
    assert not case.logits[0].is_contiguous()
    again = focal_loss(case.logits, case.targets)
    # summed in the order of the memory; a vector unit's last bit differs from a scalar's
    torch.testing.assert_close(again, loss, rtol=1e-6, atol=0)
    for got, gradient in zip(case.gradients(again), expected, strict=True):
        torch.testing.assert_close(got, gradient, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision_logits_are_summed_in_single(dtype):
    case = make_case(dtype=dtype)
    loss = focal_loss(case.logits, case.targets)
    assert loss.dtype == torch.float32
    gradients = case.gradients(loss)
    case.logits = [x.detach().float().requires_grad_() for x in case.logits]
    single = focal_loss(case.logits, case.targets)
    assert loss == single
    for got, expected in zip(gradients, case.gradients(single), strict=True):
        assert got.dtype == dtype
        assert torch.equal(got, expected.to(dtype))


def test_loss_scaling_saves_small_gradients_from_underflow():
    """Mixed precision multiplies the loss by 2^16 so that fp16 holds its gradients."""
    case = make_case(dtype=torch.float16, positive=0.05)
    with torch.no_grad():
        for x in case.logits:
            x.sub_(9)  # scores of 0.0001: gradients far below what fp16 can hold
    gradients = case.gradients(focal_loss(case.logits, case.targets) * 2**16)
    case.logits = [x.detach().float().requires_grad_() for x in case.logits]
    expected = case.gradients(focal_loss(case.logits, case.targets) * 2**16)
    for got, want in zip(gradients, expected, strict=True):
        torch.testing.assert_close(got.float(), want, rtol=2e-3, atol=1e-7)


def test_gradient_scales_with_the_loss():
    case = make_case()
    once = case.gradients(focal_loss(case.logits, case.targets))
    thrice = case.gradients(focal_loss(case.logits, case.targets) * 3)
    for a, b in zip(once, thrice, strict=True):
        torch.testing.assert_close(b, a * 3)


def test_backward_twice():
    case = make_case()
    loss = focal_loss(case.logits, case.targets)
    loss.backward(retain_graph=True)
    once = [x.grad.clone() for x in case.logits]
    loss.backward()
    for x, gradient in zip(case.logits, once, strict=True):
        torch.testing.assert_close(x.grad, gradient * 2)


def test_second_derivatives_are_refused():
    """Better than a wrong one: the gradient is analytic, its derivative is not written."""
    case = make_case()
    loss = focal_loss(case.logits, case.targets)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(loss, case.logits, create_graph=True)


def test_changes_nothing():
    case = make_case()
    before = [x.detach().clone() for x in case.logits]
    labels = case.targets.labels.clone()
    focal_loss(case.logits, case.targets).backward()
    assert all(torch.equal(a, b) for a, b in zip(before, case.logits, strict=True))
    assert torch.equal(labels, case.targets.labels)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_validation_loss(mode):
    case = make_case()
    expected = focal_loss(case.logits, case.targets)
    with mode():
        logits = [x.detach().clone() for x in case.logits]
        loss = focal_loss(logits, case.targets)
    assert not loss.requires_grad
    assert loss == expected


def test_large_maps_are_chunked_without_a_trace():
    """Larger than one pass: the seams must not show."""
    case = make_case(num_classes=80, counts=(9,), sizes=((20, 20),), dtype=torch.float64)

    def reference(logits, one_hot):
        return focal_by_definition(logits, one_hot, 0.25, 2.0)

    same_loss_and_gradients(case, 0.25, 2.0, reference, rtol=1e-11)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"gamma": -1.0}, "FOCAL_LOSS_GAMMA.*-1"), ({"alpha": 1.5}, "FOCAL_LOSS_ALPHA.*1.5")],
)
def test_wrong_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        FocalLoss(**arguments)


def test_module_is_the_function():
    case = make_case()
    module = FocalLoss(alpha=0.4, gamma=1.5)
    assert module(case.logits, case.targets) == focal_loss(
        case.logits, case.targets, alpha=0.4, gamma=1.5
    )
