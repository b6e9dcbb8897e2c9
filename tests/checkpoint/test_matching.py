"""Foreign names find their place; what is loaded computes the same."""

import pytest
import torch
import torchvision
from support.foreign_models import detectron2_resnet, random_statistics
from torch import nn

from retina_plugin.checkpoint.mapping import map_onto
from retina_plugin.checkpoint.matching import match_names
from retina_plugin.checkpoint.resnet_names import resnet_to_detectron2, resnet_to_torchvision


@pytest.fixture(scope="module")
def resnet18():
    torch.manual_seed(0)
    return random_statistics(torchvision.models.resnet18())


def stages(resnet, x):
    x = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(x))))
    res3 = resnet.layer2(resnet.layer1(x))
    return {"res3": res3, "res5": resnet.layer4(resnet.layer3(res3))}


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_torchvisions_resnet_in_detectron2s(depth, prefix):
    theirs = random_statistics(getattr(torchvision.models, f"resnet{depth}")())
    ours = detectron2_resnet(depth)
    given = {prefix + name: tensor for name, tensor in theirs.state_dict().items()}
    mapped = map_onto(ours, given)
    ours.load_state_dict(mapped.tensors)
    assert mapped.unexpected == [f"{prefix}fc.weight", f"{prefix}fc.bias"]
    assert "ResNet" in mapped.layout
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for name, value in stages(theirs, x).items():
            torch.testing.assert_close(ours(x)[name], value, rtol=1e-4, atol=1e-4)


def test_the_names_of_a_resnet_there_and_back(resnet18):
    names = list(resnet18.state_dict())
    renamed = [resnet_to_detectron2(name) for name in names]
    assert len(set(renamed)) == len(names)
    assert [resnet_to_torchvision(name) for name in renamed] == names
    assert resnet_to_detectron2("layer4.0.downsample.1.bias") == "res5.0.shortcut.norm.bias"
    assert resnet_to_detectron2("features.0.weight") == "features.0.weight"


class Wrapped(nn.Module):
    def __init__(self, prefix, model):
        super().__init__()
        self.add_module(prefix, model)


@pytest.mark.parametrize("prefix", ["body", "model", "features"])
def test_a_wrapped_network_without_its_classifier(prefix):
    theirs = torchvision.models.mobilenet_v3_small()
    network = Wrapped(prefix, torchvision.models.mobilenet_v3_small().features)
    mapped = map_onto(network, theirs.state_dict())
    network.load_state_dict(mapped.tensors)
    assert all(name.startswith("classifier.") for name in mapped.unexpected)
    assert torch.equal(
        network.state_dict()[f"{prefix}.5.block.0.0.weight"], theirs.features[5].block[0][0].weight
    )


def test_timms_features_only_flattens_the_first_level():
    """As FeatureListNet names ConvNeXt's modules: stem.0 becomes stem_0, stages.0 stages_0."""
    whole = {
        f"{name}.{leaf}": torch.randn(3)
        for name in ("stem.0", "stages.0.blocks.0.conv_dw", "stages.1.downsample.0", "head.fc")
        for leaf in ("weight", "bias")
    }
    flat = nn.ModuleDict()
    for name in ("stem_0", "stages_0", "stages_1"):
        flat[name] = nn.Module()
    flat["stem_0"] = nn.GroupNorm(3, 3)
    flat["stages_0"].blocks = nn.ModuleList([nn.Module()])
    flat["stages_0"].blocks[0].conv_dw = nn.GroupNorm(3, 3)
    flat["stages_1"].downsample = nn.ModuleList([nn.GroupNorm(3, 3)])
    mapped = map_onto(flat, whole)
    assert "timm" in mapped.layout
    assert torch.equal(
        mapped.tensors["stages_1.downsample.0.bias"], whole["stages.1.downsample.0.bias"]
    )
    assert mapped.unexpected == ["head.fc.weight", "head.fc.bias"]
    assert len(mapped.tensors) == 6


def test_timms_own_models():
    timm = pytest.importorskip("timm")
    for name in ("resnet18", "convnext_atto", "efficientnet_lite0", "swin_tiny_patch4_window7_224"):
        whole = timm.create_model(name)
        features = timm.create_model(name, features_only=True)
        for network in (features, Wrapped("network", features)):
            mapped = map_onto(network, whole.state_dict())
            assert mapped.tensors.keys() == network.state_dict().keys(), name


def test_own_names_come_before_foreign_ones():
    state = detectron2_resnet(18).state_dict()
    match = match_names(state, state)
    assert match.layout == "the network's own names"
    assert all(name == other for name, other in match.names.items())


def test_of_two_readings_the_one_with_the_right_shapes(resnet18):
    """A detector's file may hold the same names twice, once of a smaller network."""
    teacher = {f"teacher.{k}": v for k, v in torchvision.models.resnet34().state_dict().items()}
    student = {f"student.{k}": v for k, v in resnet18.state_dict().items()}
    match = match_names(detectron2_resnet(18).state_dict(), {**teacher, **student})
    assert match.agreeing >= 100
    assert match.names["stem.conv1.weight"] in ("student.conv1.weight", "teacher.conv1.weight")
    wide = {f"wide.{k}": v for k, v in torchvision.models.resnet50().state_dict().items()}
    match = match_names(detectron2_resnet(18).state_dict(), {**wide, **student})
    assert match.names["res4.0.conv1.weight"] == "student.layer3.0.conv1.weight"


def test_nothing_in_common():
    match = match_names(detectron2_resnet(18).state_dict(), {"x": torch.zeros(1)})
    assert (match.names, match.agreeing) == ({}, 0)
    mapped = map_onto(detectron2_resnet(18), {"x": torch.zeros(1)})
    assert mapped.unexpected == ["x"] and not mapped.tensors
