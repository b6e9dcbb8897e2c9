"""Fused logits against the naive formula, in double precision."""

import pytest
import torch

from retina_plugin.modeling.heads.score_fusion import fuse_logits

POWERS = [(0.5, 0.5), (1.0, 1.0), (0.3, 0.7), (1.0, 0.0), (0.0, 1.0), (2.0, 1.0)]


def naive(logits, other, powers):
    """With 1 - score in double: exact where the inputs are moderate."""
    x, y = logits.double().sigmoid(), other.double().sigmoid()
    score = x ** powers[0] * y.repeat_interleave(x.shape[1] // y.shape[1], dim=1) ** powers[1]
    return torch.logit(score)


def make_maps(layout=torch.contiguous_format):
    maps = torch.randn(2, 3 * 5, 4, 6) * 4, torch.randn(2, 3, 4, 6) * 4
    return [x.contiguous(memory_format=layout) for x in maps]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("powers", POWERS)
def test_equals_the_naive_formula(powers, layout):
    logits, other = make_maps(layout)
    fused = fuse_logits(logits.requires_grad_(), other, powers)
    assert fused.shape == logits.shape and fused.dtype == torch.float32
    torch.testing.assert_close(fused, naive(logits, other, powers).float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("powers", POWERS)
def test_without_gradients_the_scores_are_the_same(powers, layout):
    maps = make_maps(layout)
    before = [x.clone() for x in maps]
    fused = fuse_logits(*maps, powers)
    assert all(torch.equal(a, b) for a, b in zip(maps, before, strict=True))
    expected = naive(*maps, powers).sigmoid().float()
    torch.testing.assert_close(fused.sigmoid(), expected, rtol=5e-6, atol=2e-7)


def test_without_gradients_extremes_are_in_order():
    x = torch.tensor([-1e4, -200.0, -80.0, 0.0, 20.0, 1e4, torch.nan]).view(1, 7, 1, 1)
    scores = fuse_logits(x, x).sigmoid().flatten()
    assert scores[-1].isnan() and not scores[:-1].isnan().any()
    torch.testing.assert_close(scores[:-1], x.sigmoid().flatten()[:-1], rtol=1e-5, atol=2e-7)


def test_extremes_are_finite_and_in_order():
    x = torch.tensor([-1e4, -200.0, -90.0, 0.0, 20.0, 60.0, 90.0, 1e4]).view(1, 8, 1, 1)
    x.requires_grad_()
    fused = fuse_logits(x, x)
    (gradient,) = torch.autograd.grad(fused.sum(), x)
    assert fused.isfinite().all() and gradient.isfinite().all()
    assert (fused.flatten().diff() >= 0).all()
    torch.testing.assert_close(fused[0, 1:6], x.detach()[0, 1:6], rtol=1e-5, atol=1e-5)


def test_gradients():
    x, y = torch.randn(1, 4, 2, 2, dtype=torch.float64), torch.randn(1, 2, 2, 2).double()
    assert torch.autograd.gradcheck(fuse_logits, (x.requires_grad_(), y.requires_grad_()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_fp32(dtype):
    x, y = (torch.randn(1, 4, 2, 2) * 8).to(dtype), (torch.randn(1, 2, 2, 2) * 8).to(dtype)
    assert torch.equal(fuse_logits(x, y), fuse_logits(x.float(), y.float()))
