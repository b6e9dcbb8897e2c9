"""The dense sum with other losses than the focal one: it has to serve a whole family."""

import pytest
import torch
from support.dense_cases import make_case
from torch.nn import functional as F

from retina_plugin.modeling.losses import dense_sum as module
from retina_plugin.modeling.losses.dense_sum import dense_sum


def square_background(x):
    """``p^2 softplus(x)`` and its derivative, a form that varifocal losses use."""
    p, s = x.sigmoid(), F.softplus(x)
    x.copy_(p.square() * (2 * (1 - p) * s + p))
    return (p.square() * s).sum()


def weighted_objects(weights):
    """Positives with a weight each, as soft targets have."""
    return lambda x: F.softplus(-x) * weights


def no_objects(x):
    return x * 0


def by_definition(case, weights):
    flat = case.flat()
    dense = flat.sigmoid().square() * F.softplus(flat)
    own = case.one_hot().bool()
    background = dense[case.valid()[..., None] & ~own].sum()
    labels = case.targets.labels
    image, anchor = case.targets.positives.image, case.targets.positives.anchor
    return background + (F.softplus(-flat[image, anchor, labels[image, anchor]]) * weights).sum()


@pytest.mark.parametrize("num_images", [1, 3])
@pytest.mark.parametrize("counts", [(1, 1, 1, 1), (9, 9, 9, 9), (3, 1, 2, 5)])
def test_sum_and_gradients(counts, num_images):
    case = make_case(num_images=num_images, counts=counts, dtype=torch.float64)
    weights = torch.rand(len(case.targets.positives), dtype=torch.float64)
    ours = dense_sum(case.logits, case.targets, square_background, weighted_objects(weights))
    expected = by_definition(case, weights)
    torch.testing.assert_close(ours, expected, rtol=1e-11, atol=0)
    for got, want in zip(case.gradients(ours), case.gradients(expected), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)


def test_objects_see_the_positives_in_the_order_of_the_targets():
    case = make_case()
    seen = []

    def objects(x):
        seen.append(x.detach().clone())
        return x

    dense_sum(case.logits, case.targets, square_background, objects)
    positives = case.targets.positives
    flat = case.flat()[positives.image, positives.anchor]
    assert torch.equal(seen[0], flat.gather(1, case.targets.classes[:, None])[:, 0])


def test_the_background_never_sees_what_is_cut_out():
    """Positives' own classes and ignored anchors come as -inf, and as nothing else."""
    case = make_case()
    finite = 0

    def background(x):
        nonlocal finite
        finite += x.isfinite().sum().item()
        return x.zero_().sum()

    total = dense_sum(case.logits, case.targets, background, no_objects)
    labels, k = case.targets.labels, case.targets.num_classes
    assert finite == (labels >= 0).sum() * k - len(case.targets.positives)
    assert total == 0


def test_chunks_are_of_one_size(monkeypatch):
    """A chunk's temporaries fit a CPU's caches."""
    monkeypatch.setattr(module, "CHUNK", 1 << 14)
    sizes = []

    def background(x):
        sizes.append(x.numel())
        return square_background(x)

    case = make_case(num_images=2, num_classes=80, counts=(9,), sizes=((10, 10),))
    dense_sum(case.logits, case.targets, background, no_objects)
    assert sum(sizes) == case.logits[0].numel()
    assert max(sizes) <= 1 << 14
    assert len(sizes) > 1


@pytest.mark.parametrize("counts", [(1, 1, 1, 1), (3, 1, 2, 5)])
def test_gradients_keep_the_memory_format(counts):
    """A convolution's backward pass would have to bring them into its own."""
    case = make_case(num_images=2, counts=counts)
    weights = torch.ones(len(case.targets.positives))
    expected = case.gradients(
        dense_sum(case.logits, case.targets, square_background, weighted_objects(weights))
    )
    case.logits = [
        x.detach().to(memory_format=torch.channels_last).requires_grad_() for x in case.logits
    ]
    loss = dense_sum(case.logits, case.targets, square_background, weighted_objects(weights))
    for got, want in zip(case.gradients(loss), expected, strict=True):
        torch.testing.assert_close(got, want)  # a vector unit's last bit differs from a scalar's
        assert got.is_contiguous(memory_format=torch.channels_last)


def test_only_some_maps_need_gradients():
    case = make_case()
    weights = torch.ones(len(case.targets.positives))
    logits = [x.detach().requires_grad_(level == 1) for level, x in enumerate(case.logits)]
    loss = dense_sum(logits, case.targets, square_background, weighted_objects(weights))
    loss.backward()
    assert logits[1].grad.norm() > 0
    assert all(x.grad is None for level, x in enumerate(logits) if level != 1)
