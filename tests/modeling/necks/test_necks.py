"""What holds for every neck: levels, gradients, training, precision, deployment, mistakes."""

import copy
import io

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import FPN, build_model
from detectron2.utils.events import EventStorage
from support.batches import make_batch
from support.tiny_necks import CHANNELS, NAMES, C, TinyStages, make_neck, neck_cfg
from torch import nn

from retina_plugin import optimize_for_inference
from retina_plugin.modeling.layers.winograd import WinogradConv2d
from retina_plugin.registry import NECKS, UnknownNameError
from retina_plugin.workbench.benchmark.synchronisations import SynchronisationCounter

LEVELS = [f"p{level}" for level in range(3, 8)]
NORMS = ("BN", "GN", "LN", "")
REFUSED = {"BiFPNNeck": [""], "RepPANNeck": ["", "GN", "LN"]}
every_neck = pytest.mark.parametrize("name", NAMES)


def learned_statistics(model, shape=(2, 3, 96, 160)):
    """Statistics, factors and weights that are not the initial ones."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.2)
        model.train()
        for _ in range(2):
            model(torch.randn(shape))
    return model.eval()


def test_there_are_necks():
    assert {"FPNNeck", "PAFPNNeck", "BiFPNNeck", "RepPANNeck"} <= set(NAMES)


@pytest.mark.parametrize("top", ["C5", "P5"])
@pytest.mark.parametrize("size", [(64, 128), (96, 160), (32, 224), (160, 32)])
@every_neck
def test_levels(name, size, top):
    """Also of odd multiples of 32, of which P6 and P7 round up."""
    neck = make_neck(name, top=top)
    shapes = neck.output_shape()
    assert {n: (s.stride, s.channels) for n, s in shapes.items()} == {
        f"p{level}": (2**level, C) for level in range(3, 8)
    }
    assert neck.size_divisibility == 32
    levels = neck(torch.randn(2, 3, *size))
    assert list(levels) == list(shapes) == LEVELS
    for level, map_ in levels.items():
        stride = shapes[level].stride
        assert map_.shape == (2, C, -(-size[0] // stride), -(-size[1] // stride))


@every_neck
def test_levels_of_two_stages(name):
    neck = make_neck(name, in_features=["res4", "res5"])
    assert list(neck.output_shape()) == list(neck(torch.randn(2, 3, 64, 64))) == LEVELS[1:]


@every_neck
def test_what_the_backbone_asks_of_the_image(name):
    assert make_neck(name, TinyStages(divisibility=64)).size_divisibility == 64


@pytest.mark.parametrize(("top", "channels"), [("C5", CHANNELS["res5"]), ("P5", C)])
@every_neck
def test_what_p6_is_made_of(name, top, channels):
    """Of C5 it does not see the neck; of P5 it does."""
    neck = make_neck(name, top=top).eval()
    assert neck.top_block.p6.in_channels == channels
    seen = []
    neck.top_block.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    x = torch.randn(1, 3, 64, 64)
    neck(x)
    assert torch.equal(seen[0], neck.bottom_up(x)["res5"]) is (top == "C5")


@pytest.mark.parametrize(
    ("name", "norm"),
    [(name, norm) for name in NAMES for norm in NORMS if norm not in REFUSED.get(name, ())],
)
@pytest.mark.parametrize("top", ["C5", "P5"])
def test_gradients_reach_all_parameters(name, top, norm):
    neck = make_neck(name, top=top, norm=norm)
    levels = neck(torch.randn(2, 3, 128, 160))
    sum((x * torch.randn_like(x)).sum() for x in levels.values()).backward()
    for parameter_name, parameter in neck.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@every_neck
def test_a_detector_learns_saves_and_loads(name, precision, tmp_path):
    model = build_model(neck_cfg(name)).train()
    batch = make_batch(sizes=((96, 160), (160, 96)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    losses = []
    for _ in range(3):
        with EventStorage(), torch.autocast("cpu", precision, precision != torch.float32):
            loss = sum(model(batch).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert torch.tensor(losses).isfinite().all()
    assert losses[0] > losses[1] > losses[2]

    DetectionCheckpointer(model, str(tmp_path)).save("model")
    other = build_model(neck_cfg(name))
    DetectionCheckpointer(other).load(str(tmp_path / "model.pth"))
    x = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        expected, found = model.eval().backbone(x), other.eval().backbone(x)
    assert all(torch.equal(found[level], expected[level]) for level in LEVELS)


@every_neck
def test_bfloat16_is_near_float32(name):
    neck = learned_statistics(make_neck(name))
    x = torch.randn(1, 3, 96, 160)
    with torch.no_grad():
        expected = neck(x)
        with torch.autocast("cpu", torch.bfloat16):
            found = neck(x)
    for level in LEVELS:
        assert found[level].dtype == torch.bfloat16
        error = (found[level].float() - expected[level]).norm() / expected[level].norm()
        assert error < 0.03, level


@pytest.mark.parametrize("channels_last", [True, False])
@every_neck
def test_optimised_for_inference(name, channels_last):
    """Every norm goes, no convolution is left that a norm or a sum could be part of."""
    neck = learned_statistics(make_neck(name))
    optimized = optimize_for_inference(neck, channels_last=channels_last)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in optimized.modules())
    x = torch.randn(2, 3, 96, 160)
    with torch.no_grad():
        expected, found = neck(x), optimized(x)
    for level in LEVELS:
        torch.testing.assert_close(found[level], expected[level], rtol=1e-4, atol=1e-5)
        if channels_last and level != "p7":
            assert found[level].is_contiguous(memory_format=torch.channels_last)


@every_neck
def test_the_host_never_waits(name):
    neck = make_neck(name)
    with SynchronisationCounter(torch.device("cpu")) as counter:
        sum(x.sum() for x in neck(torch.randn(2, 3, 64, 64)).values()).backward()
    assert not counter.waits and not counter.uploads


@every_neck
def test_copies_and_pickles(name):
    neck = make_neck(name).eval()
    file = io.BytesIO()
    torch.save(neck, file)
    file.seek(0)
    x = torch.randn(1, 3, 64, 64)
    for other in (copy.deepcopy(neck), torch.load(file, weights_only=False)):
        assert torch.equal(other(x)["p3"], neck(x)["p3"])


@every_neck
def test_traces(name):
    """For export: of a size that it was not traced with."""
    neck = learned_statistics(make_neck(name))
    example = torch.randn(1, 3, 64, 64)
    traced = torch.jit.trace(neck, example, strict=False, check_trace=False)
    x = torch.randn(1, 3, 96, 160)
    for level, expected in neck(x).items():
        torch.testing.assert_close(traced(x)[level], expected)


@every_neck
def test_3x3_convolutions_of_stride_1_multiply_less(name):
    """FocalRetinaNet has Winograd's in the neck, whatever neck."""
    cfg = neck_cfg(name)
    cfg.MODEL.FPN.OUT_CHANNELS, cfg.MODEL.WINOGRAD = 128, True
    model = build_model(cfg)
    winograd = [m for m in model.backbone.modules() if isinstance(m, WinogradConv2d)]
    of_neck = {"FPNNeck": 3, "LinearTopFPNNeck": 3, "PAFPNNeck": 5, "RepPANNeck": 5}
    assert len(winograd) == of_neck.get(name, 0)


@every_neck
def test_stages_that_are_not_there(name):
    with pytest.raises(
        UnknownNameError,
        match=r"MODEL.FPN.IN_FEATURES \(TinyStages has res3 \(stride 8\), res4 \(stride 16\), res5 "
        r"\(stride 32\)\): 'res6' is unknown. Did you mean res5",
    ):
        make_neck(name, in_features=["res4", "res6"])
    with pytest.raises(ValueError, match=r"IN_FEATURES is empty.*TinyStages has res3 \(stride 8\)"):
        make_neck(name, in_features=[])


@pytest.mark.parametrize(
    ("strides", "names", "came"),
    [
        ((8, 16, 32), ["res3", "res5"], r"res3 \(stride 8\), res5 \(stride 32\)"),
        ((8, 16, 32), ["res4", "res3"], r"res4 \(stride 16\), res3 \(stride 8\)"),
        ((6, 12, 24), ["res3", "res4"], r"res3 \(stride 6\), res4 \(stride 12\)"),
        ((8, 16, 16), ["res3", "res4", "res5"], r"res4 \(stride 16\), res5 \(stride 16\)"),
    ],
)
@every_neck
def test_strides_that_are_no_pyramid(name, strides, names, came):
    with pytest.raises(ValueError, match=f"powers of 2.*got .*{came}; TinyStages has res3"):
        make_neck(name, TinyStages(strides), in_features=names)


@every_neck
def test_an_unknown_top_lists_the_known_ones(name):
    with pytest.raises(UnknownNameError, match=rf"NECK.{name}.TOP: 'C4' is unknown.*Valid: C5, P5"):
        make_neck(name, top="C4")


@pytest.mark.parametrize(("name", "norm"), [(n, x) for n, norms in REFUSED.items() for x in norms])
def test_a_norm_that_does_not_fit(name, norm):
    with pytest.raises(ValueError, match=rf"{name}.*MODEL.FPN.NORM|MODEL.FPN.NORM of {name}.*BN"):
        build_model(neck_cfg(name, norm))


@pytest.mark.parametrize("name", [x for x in NAMES if not issubclass(NECKS.get(x), FPN)])
def test_a_stock_key_that_only_the_fpn_has(name):
    cfg = neck_cfg(name)
    cfg.MODEL.FPN.FUSE_TYPE = "avg"
    with pytest.raises(ValueError, match=rf"MODEL.FPN.FUSE_TYPE is 'avg', which {name} does not"):
        build_model(cfg)
