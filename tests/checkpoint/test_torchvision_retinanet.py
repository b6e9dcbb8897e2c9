"""torchvision's RetinaNets and ours with the same weights: the same numbers, either way."""

import copy
from functools import partial

import pytest
import torch
from support.foreign_models import detector_of, our_levels, random_statistics, sorted_by_anchor
from torchvision.models import resnet18
from torchvision.models.detection import (
    RetinaNet,
    retinanet_resnet50_fpn,
    retinanet_resnet50_fpn_v2,
)
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from retina_plugin.checkpoint.report import COUNTER
from retina_plugin.checkpoint.torchvision_names import own_name, torchvision_name
from retina_plugin.checkpoint.torchvision_retinanet import from_torchvision, to_torchvision

BUILDERS = {1: retinanet_resnet50_fpn, 2: retinanet_resnet50_fpn_v2}
SIZE = (128, 128)  # where torchvision's P6 and P7 have their strides


def published(version):
    """torchvision's own model, on a ResNet-50."""
    return BUILDERS[version](weights=None, weights_backbone=None, num_classes=4, **SIZES)


SIZES = {"min_size": SIZE[0], "max_size": SIZE[1]}


def small(classes=4, norm=False):
    """The same on a ResNet-18, of version 1, or with the head and P6 of version 2."""
    top = LastLevelP6P7(512 if norm else 256, 256)
    backbone = _resnet_fpn_extractor(resnet18(), 5, returned_layers=[2, 3, 4], extra_blocks=top)
    group_norm = partial(torch.nn.GroupNorm, 32) if norm else None
    head = RetinaNetHead(256, 9, classes, norm_layer=group_norm)
    return RetinaNet(backbone, classes, head=head, **SIZES)


def randomised(model):
    """Of random weights, with logits and deltas of about 1."""
    torch.manual_seed(0)
    random_statistics(model)
    head = model.head
    outputs = their_outputs(model, normalised_image())
    for name, layer in (
        ("cls_logits", head.classification_head.cls_logits),
        ("bbox_regression", head.regression_head.bbox_reg),
    ):
        layer.weight.data *= 0.7 / outputs[name].std()
        layer.bias.data = torch.randn_like(layer.bias) * 0.3
    head.classification_head.cls_logits.bias.data -= 1.5
    return model


@pytest.fixture(scope="module")
def models():
    """torchvision's model and its conversion, by version."""
    made = {}

    def model(version):
        if version not in made:
            theirs = randomised(published(version))
            made[version] = theirs, from_torchvision(theirs.state_dict(), "weights.pth")
        return made[version]

    return model


@pytest.fixture(scope="module")
def small_model():
    return randomised(small())


@pytest.fixture(scope="module")
def state(small_model):
    return small_model.state_dict()


@pytest.fixture(scope="module")
def state_91():
    return randomised(small(classes=91))


def normalised_image():
    return torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def their_outputs(model, x):
    features = list(model.backbone(x).values())
    outputs = model.head(features)
    anchors = model.anchor_generator(ImageList(x, [SIZE]), features)[0]
    return {**outputs, "anchors": anchors, "sizes": [f.shape[-2:].numel() * 9 for f in features]}


@torch.no_grad()
def assert_same_outputs(theirs, ours):
    """Logits, deltas and anchors of every level."""
    x = normalised_image()
    outputs = their_outputs(theirs, x)
    begin = 0
    for level, size in zip(our_levels(ours, x), outputs["sizes"], strict=True):
        part = slice(begin, begin + size)
        begin += size
        wanted = sorted_by_anchor(
            outputs["cls_logits"][0, part],
            outputs["bbox_regression"][0, part],
            outputs["anchors"][part],
        )
        for found, expected in zip(sorted_by_anchor(*level), wanted, strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert outputs["cls_logits"].std() > 0.5


@pytest.mark.parametrize("version", [1, 2])
def test_there_and_back(tmp_path, models, version):
    theirs, conversion = models(version)
    assert conversion.kind.endswith(f"version {version}")
    ours = detector_of(conversion, tmp_path)
    assert_same_outputs(theirs, ours)
    assert (ours.backbone.top_block.in_feature == "res5") == (version == 2)

    again = to_torchvision(ours.state_dict(), "ours.pth")
    fresh = published(version)
    fresh.load_state_dict(again.state)  # strict
    for name, tensor in theirs.state_dict().items():
        if not name.endswith(COUNTER):
            assert torch.equal(fresh.state_dict()[name], tensor), name
    assert f"retinanet_resnet50_fpn{'_v2' if version == 2 else ''}(num_classes=4)" in again.notes[0]


@pytest.mark.parametrize("norm", [False, True])
def test_the_same_detections(tmp_path, norm):
    """To 0.01 pixels, without suppression: torchvision clips boxes before it, Detectron2 after."""
    theirs = randomised(small(norm=norm))
    theirs.nms_thresh, theirs.score_thresh = 1.0, 0.4
    ours = detector_of(from_torchvision(theirs.state_dict(), "weights.pth"), tmp_path)
    ours.post_processor.nms_thresh, ours.post_processor.score_thresh = 1.0, 0.4
    image = torch.randint(0, 256, (3, *SIZE), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        (expected,) = theirs([image / 255])
        found = ours([{"image": image}])[0]["instances"]
    whole = expected["boxes"][:, 2:] > expected["boxes"][:, :2]  # Detectron2 drops empty boxes
    expected = {name: value[whole.all(dim=1)] for name, value in expected.items()}
    assert len(found) == len(expected["scores"]) > 50
    torch.testing.assert_close(found.scores, expected["scores"], rtol=0, atol=1e-4)
    # each has its like: of scores that are equal but for rounding either may come first
    same = (found.scores[:, None] - expected["scores"]).abs() < 1e-4
    same &= found.pred_classes[:, None] == expected["labels"]
    same &= (found.pred_boxes.tensor[:, None] - expected["boxes"]).abs().amax(dim=2) < 0.01
    assert same.any(dim=0).all() and same.any(dim=1).all()


def test_ours_trained_here_goes_to_torchvision(tmp_path, state):
    """Not only what came from there: weights of ours, biases of the towers among them."""
    ours = detector_of(from_torchvision(state, "weights.pth"), tmp_path)
    for parameter in ours.head.parameters():
        parameter.data += torch.randn_like(parameter) * 0.01
    theirs = small().eval()
    conversion = to_torchvision(ours.state_dict(), "ours.pth")
    theirs.load_state_dict(conversion.state)
    assert_same_outputs(theirs, ours)
    assert "resnet18" in conversion.notes[0] and "P5" in conversion.notes[0]


def test_the_published_file_of_version_1(tmp_path, state_91):
    """It has older names, 91 classes, and norms that add nothing to the variance."""
    theirs = copy.deepcopy(state_91)
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var[::7] *= 1e-5  # where the epsilon counts
            module.weight.data[::7] *= 1e-5**0.5
            module.eps = 0.0
    state = {old_name(name): tensor for name, tensor in theirs.state_dict().items()}
    assert "head.regression_head.conv.6.weight" in state
    conversion = from_torchvision(state, "weights.pth", norm_eps=0.0)
    assert_same_outputs(theirs, detector_of(conversion, tmp_path))
    with pytest.raises(AssertionError):
        assert_same_outputs(theirs, detector_of(from_torchvision(state, "w"), tmp_path))


def old_name(name):
    parts = name.split(".")
    if "inner_blocks" in name or "layer_blocks" in name:
        del parts[4]
    elif "_head.conv." in name:
        parts[3:5] = [str(2 * int(parts[3]))]
    return ".".join(parts)


def test_the_classes_of_coco(tmp_path, state, state_91):
    conversion = from_torchvision(state_91.state_dict(), "weights.pth", coco_classes=True)
    ours = detector_of(conversion, tmp_path)
    assert ours.num_classes == 80
    x = normalised_image()
    with torch.no_grad():
        found = sorted_by_anchor(*next(our_levels(ours, x)))[0]
        outputs = their_outputs(state_91, x)
    first = slice(0, outputs["sizes"][0])
    names = ("cls_logits", "bbox_regression", "anchors")
    parts = [outputs[name].reshape(-1, outputs[name].shape[-1])[first] for name in names]
    expected = sorted_by_anchor(*parts)[0]
    for here, there in ((0, 1), (11, 13), (79, 90)):  # person, stop sign, toothbrush
        torch.testing.assert_close(found[:, here], expected[:, there], rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="91 outputs; this one has 4"):
        from_torchvision(state, "weights.pth", coco_classes=True)


def test_names_there_and_back(models):
    for version, step in ((1, 2), (2, 3)):
        for name in models(version)[0].state_dict():
            assert torchvision_name(own_name(name, step), step) == name


# ---- what is refused


def changed(state, **tensors):
    return {**state, **{name.replace("__", "."): tensor for name, tensor in tensors.items()}}


def test_tensors_of_another_model(state):
    other = changed(state, backbone__fpn__inner_blocks__3__0__weight=torch.zeros(1))
    with pytest.raises(ValueError, match=r"x.pth: 1 of its tensors .*inner_blocks.3.0.weight"):
        from_torchvision(other, "x.pth")
    with pytest.raises(ValueError, match=r"ours.pth: 1 of its tensors .*head.quality.weight"):
        to_torchvision(changed(own(state), head__quality__weight=torch.zeros(1)), "ours.pth")


def own(state):
    return from_torchvision(state, "x").state


def test_a_part_of_a_model(state):
    part = {name: x for name, x in state.items() if "extra_blocks" not in name}
    with pytest.raises(ValueError, match=r"x.pth: .*top_block.p6.weight here is missing"):
        from_torchvision(part, "x.pth")


def test_other_anchors(state):
    other = changed(state, head__regression_head__bbox_reg__bias=torch.zeros(12))
    with pytest.raises(ValueError, match="3 anchors a cell"):
        from_torchvision(other, "x.pth")


def test_no_resnet_that_detectron2_builds(state):
    other = changed(state, backbone__body__layer1__2__conv1__weight=torch.zeros(1))
    with pytest.raises(ValueError, match=r"3, 2, 2, 2 basic blocks"):
        from_torchvision(other, "x.pth")


def test_biases_before_norms_cannot_go_back():
    ours = own(small(norm=True).state_dict())
    ours["head.cls_subnet.3.bias"] = torch.full((256,), 0.25)
    with pytest.raises(ValueError, match=r"biases, in what would be .*conv.1.0.bias up to 0.25"):
        to_torchvision(ours, "ours.pth")


def test_level_scales_cannot_go_back(state):
    scales = torch.ones(5)
    assert (
        "head.level_scales"
        not in to_torchvision({**own(state), "head.level_scales": scales}, "ours.pth").state
    )
    with pytest.raises(ValueError, match="LEVEL_SCALES"):
        to_torchvision({**own(state), "head.level_scales": scales + 0.1}, "ours.pth")
