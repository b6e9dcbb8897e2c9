"""Winograd's filtering against the convolution itself."""

import copy
import pickle

import pytest
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from detectron2.modeling import build_model
from support.tiny_models import resnet18_cfg
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.autograd import forward_ad
from torch.nn import functional as F

from retina_plugin import add_retina_config, optimize_for_inference
from retina_plugin.modeling.layers import winograd
from retina_plugin.modeling.layers.winograd import WinogradConv2d, use_winograd, winograd_conv2d

SIZES = [(8, 8), (1, 1), (4, 5), (9, 13), (70, 3), (3, 70)]
EXACT = {"rtol": 1e-11, "atol": 1e-11}


@pytest.fixture(autouse=True)
def few_tiles(monkeypatch):
    monkeypatch.setattr(winograd, "_CHUNK", 4)  # so that small maps take several parts


def tensors(height, width, images=2, dtype=torch.double):
    torch.manual_seed(0)
    shapes = (images, 3, height, width), (5, 3, 3, 3), (5,)
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_is_the_convolution(size, memory_format):
    x, weight, bias = tensors(*size)
    x = x.detach().to(memory_format=memory_format).requires_grad_()
    expected = F.conv2d(x, weight, bias, padding=1)
    found = winograd_conv2d(x, weight, bias)
    torch.testing.assert_close(found, expected, **EXACT)
    for layout in torch.contiguous_format, torch.channels_last:
        assert found.is_contiguous(memory_format=layout) == expected.is_contiguous(
            memory_format=layout
        )
    assert not found._is_view()
    factor = torch.randn_like(expected)
    for pair in zip(
        torch.autograd.grad(found, (x, weight, bias), factor),
        torch.autograd.grad(expected, (x, weight, bias), factor),
        strict=True,
    ):
        torch.testing.assert_close(*pair, **EXACT)


def test_of_no_image_and_without_bias():
    x, weight, _ = tensors(4, 4, images=0)
    assert winograd_conv2d(x, weight).shape == (0, 5, 4, 4)


def test_gradients_of_gradients():
    given = tensors(5, 6, images=1)
    assert torch.autograd.gradcheck(winograd_conv2d, given, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(winograd_conv2d, given, check_batched_grad=True)


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_computes_no_gradient_that_nobody_wants(frozen):
    given = tensors(5, 6)
    given[frozen].requires_grad_(False)
    winograd_conv2d(*given).sum().backward()
    assert [x.grad is None for x in given] == [i == frozen for i in range(3)]


def test_rounds_no_more_than_a_sum_may():
    """``sqrt(n) u``: the probabilistic bound of a sum of n products (Higham and Mary, 2019)."""
    x, weight = torch.randn(1, 256, 32, 32).relu(), torch.randn(256, 256, 3, 3)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    error = (winograd_conv2d(x, weight, torch.zeros(256)) - exact).norm() / exact.norm()
    assert error < (9 * 256) ** 0.5 * torch.finfo(torch.float32).eps / 2


def conv(kind=Conv2d, inputs=128, outputs=128, kernel=3, **arguments):
    return kind(inputs, outputs, kernel, **{"padding": 1, **arguments})


@pytest.mark.parametrize(
    ("module", "count"),
    [
        (conv(), 1),
        (conv(nn.Conv2d), 1),
        (conv(norm=nn.GroupNorm(32, 128), activation=F.relu), 1),
        (conv(outputs=36), 0),
        (conv(inputs=64), 0),
        (conv(kernel=1), 0),
        (conv(stride=2), 0),
        (conv(padding=0), 0),
        (conv(dilation=2, padding=2), 0),
        (conv(groups=2), 0),
        (conv(nn.Conv2d, padding_mode="reflect"), 0),
        (type("Special", (nn.Conv2d,), {})(128, 128, 3, padding=1), 0),
    ],
)
@torch.no_grad()
def test_only_what_it_can_do(module, count):
    """And whatever it is, it computes what it computed before."""
    before, x = copy.deepcopy(module), torch.randn(1, module.in_channels, 32, 32)
    around = nn.Sequential(module)
    assert use_winograd(around) == count
    (module,) = around
    assert isinstance(module, WinogradConv2d) == bool(count)
    assert list(module.state_dict()) == list(before.state_dict())
    torch.testing.assert_close(module(x), before(x), rtol=1e-4, atol=1e-5)


@pytest.fixture
def calls(monkeypatch):
    """How often a convolution took the new way."""
    counted = []
    known = winograd.winograd_conv2d
    monkeypatch.setattr(winograd, "winograd_conv2d", lambda *a: counted.append(1) or known(*a))
    return counted


def test_leaves_to_others_what_they_do_better(calls):
    module, x = nn.Sequential(conv()), torch.randn(1, 128, 32, 32)
    use_winograd(module)
    module(x)
    assert len(calls) == 1
    module(x[..., :31])  # few cells
    module.double()(x.double())
    module.bfloat16()(x.bfloat16())
    module.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert module(x).dtype == torch.bfloat16
    torch.jit.trace(module, x, check_trace=False)
    assert len(calls) == 1


def through(module, x):
    """Output and gradients."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    module.zero_grad()
    out = module(x)
    out.square().sum().backward()
    return out.detach(), x.grad, *(p.grad for p in module.parameters())


def assert_close(found, exact):
    for a, b in zip(found, exact, strict=True):
        # each rounds by sqrt(n) u of its norm at most, n products a sum: 9 * 128, or cells
        bound = 2 * (9 * 128) ** 0.5 * torch.finfo(torch.float32).eps / 2
        assert (a - b).norm() <= bound * b.norm()


def pair(**arguments):
    """A convolution, and its copy that uses Winograd's filtering."""
    torch.manual_seed(0)
    plain = nn.Sequential(conv(**arguments))
    fast = copy.deepcopy(plain)
    assert use_winograd(fast) == 1
    return plain, fast


def test_operations_in_place_behind_it():
    plain, fast = (nn.Sequential(*m, nn.ReLU(inplace=True)) for m in pair())
    x = torch.randn(1, 128, 32, 32)
    assert_close(through(fast, x), through(plain, x))


LAYOUTS = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "cut": lambda x: x[..., 1:],
    "cut channels_last": lambda x: x.contiguous(memory_format=torch.channels_last)[..., 1:],
    "transposed": lambda x: x.transpose(2, 3),
    "expanded": lambda x: x[:1].expand(2, -1, -1, -1),
}


@pytest.mark.parametrize("weights", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_memory_format_is_the_convolutions(layout, weights, calls):
    plain, fast = (m.to(memory_format=weights) for m in pair())
    x = LAYOUTS[layout](torch.randn(2, 128, 32, 34))
    assert fast(x).stride() == plain(x).stride()
    assert calls


def test_backward_within_another_autocast():
    plain, fast = pair()
    found = []
    for module in fast, plain:
        x = torch.randn(1, 128, 32, 32, generator=torch.Generator().manual_seed(0))
        x.requires_grad_()
        loss = module(x).square().sum()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss.backward()
        found.append((x.grad, *(p.grad for p in module.parameters())))
    assert_close(*found)


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("precision", ["high", "medium"])
def test_lower_precision_of_matrix_products(precision, where):
    plain, fast = pair()
    x = torch.randn(1, 128, 32, 32)
    exact = through(plain, x)
    fast.zero_grad()
    x.requires_grad_()
    try:
        if where == "forward":
            torch.set_float32_matmul_precision(precision)
        out = fast(x)
        torch.set_float32_matmul_precision(precision)
        out.square().sum().backward()
    finally:
        torch.set_float32_matmul_precision("highest")
    assert_close((out.detach(), x.grad, *(p.grad for p in fast.parameters())), exact)


def test_fake_tensors_leave_nothing_behind(calls):
    _, fast = pair()
    x = torch.randn(1, 128, 32, 32)
    expected = fast(x)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert isinstance(fast(mode.from_tensor(x)), FakeTensor)
    with torch.device("meta"):
        assert torch.equal(fast(x), expected)
    assert torch.equal(fast(x), expected)
    assert len(calls) == 3


def test_functional_transforms_and_forward_mode():
    plain, fast = pair()
    x = torch.randn(1, 128, 32, 32)

    def products(module):
        def total(x):
            return module(x).square().sum()

        yield torch.func.grad(total)(x)
        yield torch.func.vmap(module)(x[None].expand(2, -1, -1, -1, -1))
        yield from torch.func.jvp(total, (x,), (torch.ones_like(x),))
        with forward_ad.dual_level():
            yield forward_ad.unpack_dual(module(forward_ad.make_dual(x, x.cos()))).tangent

    assert_close(list(products(fast)), list(products(plain)))


def test_errors_and_shapes_of_the_convolution():
    plain, fast = pair()
    assert torch.equal(fast(torch.ones(128, 32, 32)), plain(torch.ones(128, 32, 32)))
    with pytest.raises(RuntimeError, match="128 channels, but got 64 channels"):
        fast(torch.randn(1, 64, 32, 32))


def test_survives_a_copy_and_a_file():
    module = nn.Sequential(conv(norm=FrozenBatchNorm2d(128)))
    assert use_winograd(module) == 1
    x = torch.randn(1, 128, 32, 32)
    for twin in copy.deepcopy(module), pickle.loads(pickle.dumps(module)):
        assert torch.equal(twin(x), module(x))


@pytest.mark.parametrize("fold", [False, True])
def test_key_of_the_detector(fold):
    """Neck and head; the bottom-up part in the optimised copy alone."""
    kinds = {}
    for key in True, False:
        cfg = add_retina_config(resnet18_cfg())
        cfg.MODEL.META_ARCHITECTURE = "FocalRetinaNet"
        cfg.MODEL.WINOGRAD, cfg.MODEL.FOLD_FROZEN_NORMS = key, fold
        model = build_model(cfg)
        names = [n for n, m in model.named_modules() if isinstance(m, WinogradConv2d)]
        kinds[key] = names, list(model.state_dict())
    assert kinds[True][1] == kinds[False][1] and not kinds[False][0]
    # four of each tower; three outputs of the FPN. 7 classes need too few channels
    assert len(kinds[True][0]) == 11 and not any("bottom_up" in n for n in kinds[True][0])
    model = build_model(cfg)
    assert len(kinds[True][0]) < use_winograd(optimize_for_inference(model))
    optimised = optimize_for_inference(model, winograd=True)
    found = [n for n, m in optimised.named_modules() if isinstance(m, WinogradConv2d)]
    assert any("bottom_up" in name for name in found)


@torch.no_grad()
def test_a_norm_that_is_folded_is_not_applied_twice():
    module = conv(norm=nn.BatchNorm2d(128), bias=False)
    module.norm.running_mean.normal_()
    network, x = nn.Sequential(module).eval(), torch.randn(1, 128, 32, 32)
    expected = network(x)
    use_winograd(network)
    optimised = optimize_for_inference(network)
    assert optimised[0].norm is None
    torch.testing.assert_close(optimised(x), expected, rtol=1e-4, atol=1e-5)
