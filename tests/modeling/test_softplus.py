"""The quick softplus: against PyTorch's in double precision."""

import pytest
import torch
from torch.nn import functional as F

from retina_plugin.modeling.softplus import softplus


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 3e-7), (torch.float64, 1e-14)])
def test_relative_error(dtype, error):
    x = torch.cat([torch.linspace(-80, 80, 100_001), torch.linspace(-1, 1, 10_001)]).to(dtype)
    exact = F.softplus(x.double(), threshold=100)
    assert ((softplus(x).double() - exact) / exact).abs().max() <= error


def test_far_out():
    x = torch.tensor([-torch.inf, -1000.0, 1000.0, torch.inf, torch.nan])
    found = softplus(x)
    assert found[:4].tolist() == [0.0, 0.0, 1000.0, torch.inf]
    assert found[4].isnan()


def test_leaves_its_input_alone_and_needs_no_graph():
    x = torch.randn(5, requires_grad=True)
    before = x.detach().clone()
    assert not softplus(x).requires_grad
    assert torch.equal(x, before)


def test_of_nothing():
    assert softplus(torch.empty(0, 3)).shape == (0, 3)
