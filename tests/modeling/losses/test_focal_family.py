"""The losses of the focal family against their definitions, written out dense and in double."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
from detectron2.structures import Instances
from support.dense_cases import make_case
from support.workers import on_workers
from torch.nn import functional as F

from retina_plugin.modeling.contracts import IGNORE
from retina_plugin.modeling.losses import dense_sum as dense_sum_module
from retina_plugin.modeling.losses.asymmetric_loss import AsymmetricLoss
from retina_plugin.modeling.losses.class_weighted_focal_loss import (
    ClassWeightedFocalLoss,
    effective_number_weights,
)
from retina_plugin.modeling.losses.equalized_focal_loss import EqualizedFocalLoss
from retina_plugin.modeling.losses.focal_loss import FocalLoss
from retina_plugin.modeling.losses.focal_star_loss import FocalStarLoss
from retina_plugin.modeling.losses.quality_focal_loss import QualityFocalLoss
from retina_plugin.modeling.losses.varifocal_loss import VarifocalLoss
from retina_plugin.workbench.benchmark.synchronisations import SynchronisationCounter

K = 3
CLASS_WEIGHTS = (0.5, 2.0, 1.5)


def focal(x, y, alpha, gamma):
    p_t = torch.where(y > 0, x.sigmoid(), 1 - x.sigmoid())
    return -torch.where(y > 0, alpha, 1 - alpha) * (1 - p_t) ** gamma * p_t.log()


def binary(x, y):
    return F.binary_cross_entropy_with_logits(x, y, reduction="none")


def quality_focal(x, y, beta):
    return (y - x.sigmoid()).abs() ** beta * binary(x, y)


def varifocal(x, y, alpha, gamma):
    return torch.where(y > 0, y * binary(x, y), alpha * x.sigmoid() ** gamma * binary(x, y))


def focal_star(x, y, alpha, gamma, beta):
    x_t = torch.where(y > 0, x, -x)
    alpha_t = torch.where(y > 0, alpha, 1 - alpha)
    return -alpha_t * (gamma * x_t + beta).sigmoid().log() / gamma


def asymmetric(x, y, positive, negative, clip):
    p = x.sigmoid()
    q = (p - clip).clamp(min=0)
    return torch.where(y > 0, -((1 - p) ** positive) * p.log(), -(q**negative) * (1 - q).log())


def equalized(x, y, alpha, gamma, scale, share):
    gammas = gamma + scale * (1 - share)
    return gammas / gamma * focal(x, y, alpha, gammas)


def equalized_loss(positive=(1.0, 4.0, 9.0), negative=(4.0, 4.0, 3.0)):
    loss = EqualizedFocalLoss(num_classes=K).eval()
    loss.positive_gradients.copy_(torch.tensor(positive))
    loss.negative_gradients.copy_(torch.tensor(negative))
    return loss


SHARE = torch.tensor([0.25, 1.0, 1.0], dtype=torch.float64)
CASES = {
    "focal": (FocalLoss(), lambda x, y: focal(x, (y > 0) * 1.0, 0.25, 2.0), False),
    "quality": (QualityFocalLoss(), lambda x, y: quality_focal(x, y, 2.0), True),
    "quality 1.5": (QualityFocalLoss(beta=1.5), lambda x, y: quality_focal(x, y, 1.5), True),
    "varifocal": (VarifocalLoss(), lambda x, y: varifocal(x, y, 0.75, 2.0), True),
    "star": (
        FocalStarLoss(gamma=2.0, beta=1.0),
        lambda x, y: focal_star(x, y, 0.25, 2.0, 1.0),
        False,
    ),
    "asymmetric": (
        AsymmetricLoss(gamma_pos=1.0),
        lambda x, y: asymmetric(x, y, 1.0, 4.0, 0.05),
        False,
    ),
    "weighted": (
        ClassWeightedFocalLoss(num_classes=K, weights=CLASS_WEIGHTS),
        lambda x, y: focal(x, y, 0.25, 2.0) * torch.tensor(CLASS_WEIGHTS, dtype=x.dtype),
        False,
    ),
    "equalized": (
        equalized_loss(),
        lambda x, y: equalized(x, y, 0.25, 2.0, 8.0, SHARE),
        False,
    ),
}


@pytest.fixture(params=CASES)
def family(request):
    """A loss, its definition of ``(..., K)`` logits and targets, whether it has soft targets."""
    return CASES[request.param]


def quality_of(case):
    """Some qualities of the positives, in double, 0 and 1 among them."""
    quality = torch.rand(len(case.targets.positives), dtype=torch.float64)
    quality[:2] = torch.tensor([0.0, 1.0])[: len(quality)]
    return SimpleNamespace(quality=quality)


def with_fields(case, **fields):
    """The same targets, every object having these numbers."""
    instances = []
    for given in case.targets.instances:
        values = {name: torch.full((len(given),), value) for name, value in fields.items()}
        instances.append(Instances(given.image_size, **given.get_fields(), **values))
    return dataclasses.replace(case.targets, instances=instances)


def by_definition(case, definition, positives, soft):
    targets = case.one_hot()
    if soft:
        at = case.targets.positives
        targets = targets.clone()
        targets[at.image, at.anchor, case.targets.classes] = positives.quality
    return definition(case.flat(), targets)[case.valid()].sum()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("chunk", [7, 1 << 18])
def test_is_its_definition(family, chunk, channels_last, monkeypatch):
    monkeypatch.setattr(dense_sum_module, "CHUNK", chunk)
    loss, definition, soft = family
    case = make_case(num_classes=K, dtype=torch.float64)
    if channels_last:
        case.logits = [
            x.detach().to(memory_format=torch.channels_last).requires_grad_() for x in case.logits
        ]
    positives = quality_of(case)
    ours = loss(case.logits, case.targets, positives)
    expected = by_definition(case, definition, positives, soft)
    torch.testing.assert_close(ours, expected, rtol=1e-7, atol=0)  # EFL's sums are fp32
    for got, want in zip(case.gradients(ours), case.gradients(expected), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-9)


def test_gradcheck(family):
    """The analytic gradient against differences, weights and shifts of objects included."""
    case = make_case(
        num_classes=K,
        counts=(2, 1),
        sizes=((2, 3), (1, 1)),
        dtype=torch.float64,
        positive=0.4,
        ignored=0.2,
    )
    assert len(case.targets.positives) > 1 and len(case.targets.ignored) > 1
    targets = with_fields(case, gt_weight=1.5, gt_gamma_shift=0.25)
    positives = quality_of(case)
    assert torch.autograd.gradcheck(lambda *x: family[0](x, targets, positives), tuple(case.logits))


@pytest.mark.parametrize("share", [{"positive": 0.0}, {"positive": 0.0, "ignored": 1.0}])
def test_without_objects_there_is_a_gradient(family, share):
    case = make_case(num_classes=K, **share)
    total = family[0](case.logits, case.targets, quality_of(case))
    gradients = case.gradients(total)
    assert total.isfinite() and all(x.isfinite().all() for x in gradients)
    if "ignored" in share:
        assert (case.targets.labels == IGNORE).all()
        assert total == 0 and not any(x.any() for x in gradients)
    else:
        assert total > 0


def test_neutral_fields_change_no_bit(family):
    case = make_case(num_classes=K)
    positives = quality_of(case)
    plain = family[0](case.logits, case.targets, positives)
    neutral = with_fields(case, gt_weight=1.0, gt_gamma_shift=0.0)
    same = family[0](case.logits, neutral, positives)
    assert torch.equal(plain, same)
    for one, other in zip(case.gradients(plain), case.gradients(same), strict=True):
        assert torch.equal(one, other)


def test_a_weight_multiplies_the_objects_alone(family):
    case = make_case(num_classes=K, dtype=torch.float64)
    positives = quality_of(case)
    sums = [
        family[0](case.logits, with_fields(case, gt_weight=weight), positives).item()
        for weight in (0.0, 1.0, 2.0)
    ]
    assert sums[1] - sums[0] > 0
    assert math.isclose(sums[2] - sums[1], sums[1] - sums[0], rel_tol=1e-9)


@pytest.mark.parametrize("name", ["focal", "quality", "star", "asymmetric", "weighted"])
def test_a_shift_focuses_less(name):
    """``gamma - shift``: that of the same loss with the lower gamma, background apart."""
    loss, _, _ = CASES[name]
    case = make_case(num_classes=K, dtype=torch.float64)
    positives = quality_of(case)
    plain = loss(case.logits, case.targets, positives)
    shifted = loss(case.logits, with_fields(case, gt_gamma_shift=0.5), positives)
    far = loss(case.logits, with_fields(case, gt_gamma_shift=9.0), positives)
    assert shifted != plain and far.isfinite()
    if name != "star":
        assert plain < shifted < far


@pytest.mark.parametrize(("gamma", "least"), [(4.0, 1.0), (0.5, 0.5)])
def test_an_object_of_focal_star_is_focused_no_less_than_by_cross_entropy(gamma, least):
    """Which is slope 1: nearer to 0 an object would cost hundreds, whatever its score."""
    case = make_case(num_classes=K, dtype=torch.float64)
    case.targets = with_fields(case, gt_gamma_shift=9.0)
    found = FocalStarLoss(gamma=gamma)(case.logits, case.targets)
    background = focal_star(case.flat(), case.one_hot(), 0.25, gamma, 0.0)
    objects = focal_star(case.flat(), case.one_hot(), 0.25, least, 0.0)
    expected = torch.where(case.one_hot() > 0, objects, background)[case.valid()].sum()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("loss", "same_as"),
    [
        (ClassWeightedFocalLoss(num_classes=K, weights=(1.0,) * K), FocalLoss()),
        (equalized_loss((1.0,) * K, (1.0,) * K), FocalLoss()),
        (EqualizedFocalLoss(num_classes=K).eval(), FocalLoss()),  # nothing counted yet
        (AsymmetricLoss(gamma_pos=2.0, gamma_neg=2.0, clip=0.0), FocalLoss(alpha=-1)),
        (FocalStarLoss(alpha=0.5, gamma=1.0), FocalLoss(alpha=0.5, gamma=0.0)),
    ],
    ids=["weights 1", "balanced", "fresh", "symmetric", "star of slope 1"],
)
def test_is_another_loss_at_some_setting(loss, same_as):
    case = make_case(num_classes=K, dtype=torch.float64)
    ours, theirs = loss(case.logits, case.targets), same_as(case.logits, case.targets)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)


def test_quality_1_is_the_focal_loss_without_alpha():
    case = make_case(num_classes=K, dtype=torch.float64)
    sure = SimpleNamespace(quality=torch.ones(len(case.targets.positives)))
    ours = QualityFocalLoss()(case.logits, case.targets, sure)
    torch.testing.assert_close(ours, FocalLoss(alpha=-1)(case.logits, case.targets))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_half_precision_maps_in_fp32(family, dtype):
    case = make_case(num_classes=K, dtype=dtype)
    total = family[0](case.logits, case.targets, quality_of(case))
    assert total.dtype == torch.float32
    assert {x.dtype for x in case.gradients(total)} == {dtype}


def test_no_wait_for_the_device(family):
    case, positives = make_case(num_classes=K), None
    positives = quality_of(case)
    assert len(case.targets.positives)  # the one wait of a step
    neutral = with_fields(case, gt_weight=1.0, gt_gamma_shift=0.0)
    assert len(neutral.positives)
    with SynchronisationCounter(torch.device("cpu")) as counter:
        family[0](case.logits, neutral, positives).backward()
    assert not counter.waits, counter.waits


def _two_images():
    torch.manual_seed(0)
    return make_case(num_classes=K)


def _count_a_half(rank):
    case, mine = _two_images(), slice(rank, rank + 1)
    targets = dataclasses.replace(
        case.targets,
        labels=case.targets.labels[mine],
        matched=case.targets.matched[mine],
        instances=case.targets.instances[mine],
    )
    loss = EqualizedFocalLoss(num_classes=K)
    loss([x[mine] for x in case.logits], targets)
    return loss.state_dict()


class TestEqualized:
    def test_counts_gradients_in_training_alone(self):
        loss, case = EqualizedFocalLoss(num_classes=K), make_case(num_classes=K)
        expected = case.gradients(loss.eval()(case.logits, case.targets))
        assert not loss.positive_gradients.any()
        loss.train()(case.logits, case.targets)
        total = sum(
            x.abs().view(x.shape[0], -1, K, *x.shape[2:]).sum((0, 1, 3, 4)) for x in expected
        )
        counted = loss.positive_gradients + loss.negative_gradients
        torch.testing.assert_close(counted, total, rtol=1e-4, atol=1e-6)
        assert (loss.positive_gradients > 0).all() and (loss.negative_gradients > 0).all()
        twin = EqualizedFocalLoss(num_classes=K)
        twin.load_state_dict(loss.state_dict())
        assert torch.equal(twin.gammas, loss.gammas)

    def test_without_gradients_nothing_is_counted(self):
        loss, case = EqualizedFocalLoss(num_classes=K), make_case(num_classes=K)
        with torch.no_grad():
            loss([x.detach() for x in case.logits], case.targets)
        assert not loss.negative_gradients.any()

    def test_workers_add_their_gradients(self, tmp_path):
        """Two workers of a half of the images each know what one of all of them would."""
        first, second = on_workers(2, tmp_path, _count_a_half)
        whole = EqualizedFocalLoss(num_classes=K)
        case = _two_images()
        whole(case.logits, case.targets)
        for name, expected in whole.state_dict().items():
            assert torch.equal(first[name], second[name]), name
            torch.testing.assert_close(first[name], expected, rtol=1e-5, atol=0)

    def test_rare_classes_are_focused_more(self):
        assert equalized_loss().gammas.tolist() == [8.0, 2.0, 2.0]


def test_effective_numbers():
    assert effective_number_weights([5, 5, 5], 0.999) == [1.0] * 3
    assert effective_number_weights([1, 100], 0.0) == [1.0, 1.0]
    rare, common = effective_number_weights([1, 1000], 0.999)
    assert math.isclose(rare + common, 2) and math.isclose(
        rare / common, 1000 * 0.632, rel_tol=1e-2
    )
    assert effective_number_weights([0, 1], 0.9) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda: QualityFocalLoss(beta=-1), "QualityFocalLoss.BETA"),
        (lambda: VarifocalLoss(alpha=2), "VarifocalLoss.ALPHA"),
        (lambda: VarifocalLoss(gamma=-1), "VarifocalLoss.GAMMA"),
        (lambda: FocalStarLoss(gamma=0), "FocalStarLoss.GAMMA"),
        (lambda: FocalStarLoss(alpha=-1), "FocalStarLoss.ALPHA"),
        (lambda: AsymmetricLoss(clip=1), "AsymmetricLoss.CLIP"),
        (lambda: AsymmetricLoss(gamma_neg=-1), "AsymmetricLoss.GAMMA_NEG"),
        (lambda: ClassWeightedFocalLoss(num_classes=2), "WEIGHTS or COUNTS"),
        (lambda: ClassWeightedFocalLoss(num_classes=2, weights=[1]), "2 classes"),
        (lambda: ClassWeightedFocalLoss(num_classes=1, weights=[-1]), ".WEIGHTS must be 0"),
        (lambda: ClassWeightedFocalLoss(num_classes=1, counts=[-1]), ".COUNTS must be 0"),
        (lambda: ClassWeightedFocalLoss(num_classes=1, counts=[1], beta=1), ".BETA must be"),
        (lambda: EqualizedFocalLoss(num_classes=2, gamma=0), "FOCAL_LOSS_GAMMA"),
        (lambda: EqualizedFocalLoss(num_classes=2, scale=-1), "EqualizedFocalLoss.SCALE"),
    ],
)
def test_names_the_key_of_a_wrong_setting(build, key):
    with pytest.raises(ValueError, match=key.replace(".", r"\.")):
        build()
