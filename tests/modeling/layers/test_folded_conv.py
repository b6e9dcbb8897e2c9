"""Convolutions with their frozen norms folded in, against the same apart."""

import copy
import pickle

import pytest
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from detectron2.modeling import FPN, build_model
from detectron2.modeling.backbone.resnet import BottleneckBlock
from support.tiny_models import TinyBottomUp, resnet18_cfg
from torch import nn
from torch.nn import functional as F
from torchvision.ops import Conv2dNormActivation

from retina_plugin import add_retina_config
from retina_plugin.modeling.layers.folded_conv import (
    FoldedConv2d,
    FoldedSequential,
    fold_frozen_norms,
)

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def frozen_norm(channels):
    norm = FrozenBatchNorm2d(channels)
    for name in ("weight", "bias", "running_mean"):
        setattr(norm, name, torch.randn(channels))
    norm.running_var = torch.rand(channels) + 0.1
    return norm


def own_norm(**arguments):
    """Detectron2's convolution, which calls its norm itself."""
    conv = Conv2d(4, 6, 3, **{"bias": False, "padding": 1, **arguments}, norm=frozen_norm(6))
    return nn.Sequential(conv, nn.Conv2d(6, 2, 1))


def neighbours(**arguments):
    """A convolution and a norm in turn, as torchvision builds networks."""
    conv = nn.Conv2d(4, 6, 3, **{"bias": False, "padding": 1, **arguments})
    return nn.Sequential(nn.Sequential(conv, frozen_norm(6), nn.ReLU()), nn.Conv2d(6, 2, 1))


def activated():
    conv = Conv2d(4, 6, 3, bias=False, norm=frozen_norm(6), activation=F.relu_)
    return nn.Sequential(conv, nn.Conv2d(6, 2, 1))


def frozen_weight():
    network = own_norm()
    network[0].weight.requires_grad_(False)
    return network


CASES = {
    "own": own_norm,
    "neighbours": neighbours,
    "activated": activated,
    "stride": lambda: own_norm(stride=2, dilation=2),
    "groups": lambda: neighbours(groups=2),
    "bias": lambda: neighbours(bias=True),
    "own bias": lambda: own_norm(bias=True),
    "frozen weight": frozen_weight,
}


@pytest.fixture(params=CASES)
def pair(request):
    """A network in double precision, and the same folded."""
    apart = CASES[request.param]().double()
    folded = copy.deepcopy(apart)
    folded, count = fold_frozen_norms(folded)
    assert count == 1
    return apart, folded


def results(network, x):
    """Output, and the gradients of all that has one."""
    x = x.clone().requires_grad_()
    output = network(x)
    (output * torch.arange(output.numel()).view_as(output)).sum().backward()
    return output, x.grad, *(p.grad for p in network.parameters() if p.grad is not None)


def assert_same_results(one, other, x, **tolerance):
    for a, b in zip(results(one, x), results(other, x), strict=True):
        torch.testing.assert_close(a, b, **tolerance or EXACT)


@pytest.mark.parametrize("images", [0, 1, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_same_output_and_gradients(pair, layout, images):
    x = torch.randn(images, 4, 8, 9, dtype=torch.float64).to(memory_format=layout)
    assert_same_results(*pair, x)
    with torch.no_grad():
        torch.testing.assert_close(pair[1](x), pair[0](x), **EXACT)


def test_same_names_and_tensors(pair):
    apart, folded = pair
    assert list(folded.state_dict()) == list(apart.state_dict())
    assert [n for n, _ in folded.named_parameters()] == [n for n, _ in apart.named_parameters()]
    other = copy.deepcopy(apart)
    for tensor in other.state_dict().values():
        tensor.mul_(0.5)
    folded.load_state_dict(other.state_dict())
    assert_same_results(other, folded, torch.randn(2, 4, 8, 9, dtype=torch.float64))


def test_the_parameters_are_the_same_objects():
    network = own_norm()
    weight = network[0].weight
    fold_frozen_norms(network)
    assert network[0].weight is weight
    assert isinstance(network[0], Conv2d)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_stand_alone(pair, copied):
    """A copy reads its own norm, not the original's."""
    _, folded = pair
    x = torch.randn(2, 4, 8, 9, dtype=torch.float64)
    other = copied(folded)
    before = other(x)
    for tensor in folded.state_dict().values():
        tensor.zero_()
    assert torch.equal(other(x), before)
    other.load_state_dict(folded.state_dict())
    assert not other(x).any()


def test_only_what_is_certain_is_folded():
    network = nn.Sequential(
        Conv2d(4, 4, 1, norm=nn.BatchNorm2d(4)),
        *(nn.Conv2d(4, 4, 1), nn.ReLU(), frozen_norm(4)),
        *(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), frozen_norm(4)),
        *(Conv2d(4, 4, 1, activation=F.relu), frozen_norm(4)),
        *(nn.ConvTranspose2d(4, 4, 1), frozen_norm(4)),
    )
    assert fold_frozen_norms(network) == (network, 0)
    assert not any(isinstance(m, FoldedConv2d | FoldedSequential) for m in network.modules())


class Stem(nn.Sequential):
    out_channels = 4

    def freeze(self):
        return self.requires_grad_(False)


class Other(nn.Sequential):
    def forward(self, x):
        return self[1](x)


@pytest.mark.parametrize("kind", [Stem, Other])
def test_subclasses_of_sequential_are_left_alone(kind):
    network = nn.Sequential(kind(nn.Conv2d(4, 4, 1), frozen_norm(4)))
    assert fold_frozen_norms(network) == (network, 0)
    assert type(network[0]) is kind


def test_the_root_itself_and_torchvisions_blocks():
    block = Conv2dNormActivation(4, 6, 3, norm_layer=frozen_norm)
    x = torch.randn(2, 4, 8, 9)
    expected = block(x)
    folded, count = fold_frozen_norms(block)
    assert count == 1 and isinstance(folded, FoldedSequential)
    assert folded.out_channels == 6
    torch.testing.assert_close(folded(x), expected)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("case", ["own", "neighbours"])
def test_hooks_see_what_they_saw(case, when):
    """Those of the convolution, of the norm and of the module around both; handles stay valid."""
    network, x = CASES[case](), torch.randn(2, 4, 8, 9)
    names, seen, handles = {m: n for n, m in network.named_modules()}, [], []

    def hook(around):
        def note(module, args, output):
            seen.append((around[module], args[0].clone(), output.clone()))

        return note

    def register(around):
        handles.extend(m.register_forward_hook(hook(around)) for m in around if around[m])

    register(names)
    network(x)
    expected = list(seen)
    if when == "before":
        [h.remove() for h in handles]
        handles.clear()
        fold_frozen_norms(network)
        names = {m: n for n, m in network.named_modules()}
        register(names)
    else:
        fold_frozen_norms(network)
        names.update({m: n for n, m in network.named_modules()})
    seen.clear()
    network(x)
    assert [name for name, _, _ in seen] == [name for name, _, _ in expected]
    for (_, *found), (_, *right) in zip(seen, expected, strict=True):
        for pair in zip(found, right, strict=True):
            torch.testing.assert_close(*pair)
    [h.remove() for h in handles]
    seen.clear()
    network(x)
    assert not seen


def test_functional_transforms_and_second_derivatives(pair):
    apart, folded = pair
    x = torch.randn(1, 4, 4, 5, dtype=torch.float64)

    def results(network):
        def total(x):
            return network(x).pow(3).sum()

        yield torch.func.grad(total)(x)
        yield torch.func.hessian(total)(x)
        yield from torch.func.jvp(total, (x,), (x.cos(),))
        yield torch.func.vmap(network)(x.expand(3, 1, -1, -1, -1))
        given = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(total(given), given, create_graph=True)
        parameters = [p for p in network.parameters() if p.requires_grad]
        yield from torch.autograd.grad(
            slope.square().sum(), [given, *parameters], allow_unused=True, materialize_grads=True
        )

    for got, exact in zip(results(folded), results(apart), strict=True):
        torch.testing.assert_close(got, exact, **EXACT)


def test_twice_is_once(pair):
    assert fold_frozen_norms(pair[1]) == (pair[1], 0)


@pytest.mark.parametrize("case", ["own", "neighbours"])
def test_norms_that_thaw(case):
    """Detectron2 makes batch norms of frozen ones: they are applied, and once."""
    network = CASES[case]()
    fold_frozen_norms(network)
    network = FrozenBatchNorm2d.convert_frozenbatchnorm2d_to_batchnorm2d(network)
    apart = CASES[case]()
    apart = FrozenBatchNorm2d.convert_frozenbatchnorm2d_to_batchnorm2d(apart)
    apart.load_state_dict(network.state_dict())
    x = torch.randn(2, 4, 8, 9)
    torch.testing.assert_close(network(x), apart(x))


def test_convolutions_that_are_also_kept_in_a_list():
    """As Detectron2's FPN does, which calls those in its lists."""
    fpn = FPN(bottom_up=TinyBottomUp(), in_features=["res3"], out_channels=8, norm="FrozenBN")
    assert fold_frozen_norms(fpn) == (fpn, 2)
    assert type(fpn.lateral_convs[0]) is type(fpn.output_convs[0]) is FoldedConv2d


@pytest.mark.parametrize("case", ["own", "neighbours"])
def test_mixed_precision(case):
    apart = CASES[case]()
    folded = copy.deepcopy(apart)
    fold_frozen_norms(folded)
    x = torch.randn(2, 4, 8, 9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert folded(x).dtype == torch.bfloat16
        found = results(folded, x)
    assert [g.dtype for g in found[1:]] == [torch.float32] * (len(found) - 1)
    for got, exact in zip(found, results(apart, x), strict=True):
        assert (got - exact).norm() <= 0.02 * exact.norm()


def test_the_product_is_not_kept():
    """The backward pass keeps the input and the parameter: no second copy of the weights."""
    kept = []
    network = own_norm()
    fold_frozen_norms(network)
    x = torch.randn(1, 4, 8, 9)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        network[0](x)
    weights = [t for t in kept if t.shape == network[0].weight.shape]
    assert [t.data_ptr() for t in weights] == [network[0].weight.data_ptr()]


def test_nothing_is_recorded_where_nothing_learns():
    network = own_norm().requires_grad_(False)
    fold_frozen_norms(network)
    assert network(torch.randn(1, 4, 8, 9)).grad_fn is None


def test_a_resnet():
    """Detectron2's, with its lists of stages, freezing and all."""
    cfg = resnet18_cfg()
    cfg.MODEL.META_ARCHITECTURE = "FocalRetinaNet"
    assert not any(isinstance(m, FoldedConv2d) for m in build_model(cfg).modules())
    add_retina_config(cfg).MODEL.FOLD_FROZEN_NORMS = True
    model = build_model(cfg)
    resnet = model.backbone.bottom_up
    frozen = [m for m in resnet.modules() if isinstance(m, FrozenBatchNorm2d)]
    folded = [m for m in resnet.modules() if isinstance(m, FoldedConv2d)]
    assert len(folded) == len(frozen) == 20
    assert not any(isinstance(m, BottleneckBlock) for m in resnet.modules())
    resnet.freeze(4)
    out = model.backbone(torch.randn(1, 3, 64, 64))
    sum(x.mean() for x in out.values()).backward()
    learning = {n.split(".")[1] for n, p in model.backbone.named_parameters() if p.grad is not None}
    assert "res4" not in learning and "res5" in learning


class FrozenNormAndActivation(FrozenBatchNorm2d):
    def forward(self, x):
        return super().forward(x).relu()


@pytest.mark.parametrize("around", [neighbours, own_norm])
def test_a_norm_that_does_more_stays(around):
    network = around()
    for module in list(network.modules()):
        if isinstance(module, FrozenBatchNorm2d):
            module.__class__ = FrozenNormAndActivation
    x = torch.randn(2, 4, 8, 8)
    expected = network(x)
    fold_frozen_norms(network)
    assert torch.equal(network(x), expected)
