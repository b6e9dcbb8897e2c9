"""Every planted cause is named: layer, image, box, class, level, and what to do."""

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from support.batches import make_batch
from support.failing import (
    CLASSES,
    FlatRoot,
    NaNForClass,
    finding_of,
    float_batch,
    step_of,
    tiny_detector,
    with_bad_pixel,
)

from retina_plugin.engine.non_finite.causes import likely_cause
from retina_plugin.engine.non_finite.finding import LOSS, Box, Finding, Image, Layer


@pytest.mark.parametrize("norm", ["", "GN"])
def test_a_learning_rate_that_is_too_high(norm):
    """Also where it is a norm that overflows."""
    step = step_of(tiny_detector(NORM=norm), [make_batch()] * 8, lr=1e6)
    found = finding_of(step, 8)
    assert found.step > 0 and found.history[-1]["loss"] > 0
    assert "learning rate" in found.why and "1e+06" in found.why
    assert any("SOLVER.BASE_LR 1e+05" in line for line in found.advice)
    assert any("CLIP_GRADIENTS.ENABLED True" in line for line in found.advice)


def test_a_pixel_that_is_no_number():
    found = finding_of(step_of(tiny_detector(), [with_bad_pixel(float_batch())]))
    (image,) = found.images
    assert (image.file, image.id, image.bad_pixels) == ("image_1.png", "101", 1)
    assert image.pixels == 3 * 96 * 96
    assert found.layer.name == "backbone.bottom_up.res3" and found.layer.from_input
    assert "image_1.png" in found.advice[0] and "pixel" in found.why
    assert "image_1.png (id 101): 1 of 27,648 pixel values not finite" in str(found)


def test_a_box_of_infinite_width():
    """Which ATSS gives to anchors; overlaps of 0 assign it to none."""
    batch = float_batch()
    batch[0]["instances"].gt_boxes.tensor[2] = torch.tensor([10.0, 10.0, torch.inf, 40.0])
    found = finding_of(step_of(tiny_detector(assigner="ATSSAssigner"), [batch]))
    (image,) = found.images
    assert image.file == "image_0.png" and found.layer is None
    assert image.boxes[0].losses == ["loss_box_reg"] and image.boxes[0].levels
    assert image.boxes[0].what == "not finite" and image.boxes[0].box[2] == torch.inf
    label = int(batch[0]["instances"].gt_classes[2])
    assert (image.boxes[0].label, image.boxes[0].class_name) == (label, CLASSES[label])
    assert "A box of image_0.png is not finite" in found.why


def test_a_weight_that_overflows():
    model = tiny_detector(NORM="")
    with torch.no_grad():
        model.head.cls_subnet[2].weight.fill_(2e38)
    found = finding_of(step_of(model, [make_batch()]))
    layer = found.layer
    assert (layer.name, layer.kind, layer.level) == ("head.cls_subnet.2", "Conv2d", "p3")
    assert layer.largest_weight > 1e38 and layer.images == [0, 1] and not layer.from_input
    assert found.why == "Before anything was learnt, head.cls_subnet.2 has weights up to 2e+38."
    text = str(found)
    assert "head.cls_subnet.2" in text and "all 2, so no one of them: image_0.png" in text
    assert len(text.splitlines()) <= 20


def test_a_norm_within_a_convolution_does_not_hide_it():
    """Detectron2's Conv2d has its norm inside: the norm is the first that gives such numbers."""
    model = tiny_detector()
    convolution = model.backbone.fpn_output3
    convolution.norm = torch.nn.BatchNorm2d(64)
    with torch.no_grad():
        convolution.weight.fill_(3e38)
    found = finding_of(step_of(model, [make_batch()]))
    assert found.layer.name == "backbone.fpn_output3"


def test_weights_that_are_no_numbers():
    model = tiny_detector()
    with torch.no_grad():
        model.head.bbox_pred.bias.fill_(torch.nan)
    found = finding_of(step_of(model, [make_batch()]))
    assert found.parameters == ["head.bbox_pred.bias"]
    assert "MODEL.WEIGHTS" in found.advice[0] and "began with" in found.why


def test_a_loss_that_one_class_makes_nan():
    model = tiny_detector()
    batch = float_batch((6, 3))
    for given in batch:
        given["instances"].gt_classes.zero_()
    batch[1]["instances"].gt_classes[1] = 5
    model.cls_loss = NaNForClass(model.cls_loss, 5)
    found = finding_of(step_of(model, [batch]))
    assert found.layer is None and found.bad_losses == ["loss_cls"]
    (image,) = found.images
    (box,) = image.boxes
    assert image.file == "image_1.png" and (box.label, box.class_name) == (5, "fox")
    assert box.box == batch[1]["instances"].gt_boxes.tensor[1].tolist()
    assert (
        box.losses == ["loss_cls"] and box.levels and set(box.levels) <= set(model.head_in_features)
    )
    assert "class 5 'fox'; loss_cls not finite; level p" in str(found)
    assert model.cls_loss.training


def test_the_loss_of_the_background_alone():
    model = tiny_detector()

    def loss(logits, targets, positives):
        return logits[0].sum() * torch.nan

    model.cls_loss = None
    del model._modules["cls_loss"]
    model.cls_loss = loss
    found = finding_of(step_of(model, [make_batch()]))
    assert all(image.background for image in found.images)


def test_a_gradient_that_is_no_number_where_the_loss_is_one():
    model = tiny_detector()
    model.box_loss = FlatRoot(model.box_loss)
    found = finding_of(step_of(model, [make_batch((6, 0))], CHECK_GRADIENTS=True))
    assert found.what == "gradient" and not found.bad_losses and found.layer is None
    assert found.gradients[0].startswith("head.bbox_pred")
    assert [image.file for image in found.images] == ["image_0.png"]
    assert str(found).startswith("The gradient became infinite or NaN at iteration=0")


def test_the_micro_batch_is_found():
    batches = [float_batch(), with_bad_pixel(float_batch())]
    found = finding_of(step_of(tiny_detector(), batches, parts=2))
    assert [image.index for image in found.images] == [3] and found.num_images == 4
    assert found.layer.images == [3]


def test_batch_norms_need_more_than_one_value():
    """The last level of one small image is a single cell."""
    model = tiny_detector(NORM="BN")
    batch = float_batch()
    for given in batch:
        given["instances"].gt_classes.zero_()
    batch[1]["instances"].gt_classes[1] = 5
    model.cls_loss = NaNForClass(model.cls_loss, 5)
    found = finding_of(step_of(model, [batch]))
    assert not found.notes and [box.label for box in found.images[0].boxes] == [5]


def test_statistics_of_a_frozen_norm():
    model = tiny_detector()
    model.backbone.fpn_output3.norm = FrozenBatchNorm2d(64)
    model.backbone.fpn_output3.norm.running_var.fill_(-1)
    found = finding_of(step_of(model, [make_batch()]))
    assert found.layer.name == "backbone.fpn_output3.norm"
    assert "negative or tiny variance" in found.why and "FrozenBN" in found.advice[1]


def test_half_precision():
    layer = Layer(
        name="backbone.x", kind="Conv2d", dtype="float16", largest_input=6e4, bad=3, total=9
    )
    found = Finding(5, LOSS, {"loss_cls": torch.inf}, "float16", "cuda:0", layer=layer)
    cause = likely_cause(found, lr=0.01, first_step=False)
    assert "65504" in cause.why and cause.advice[0] == "SOLVER.AMP.PRECISION bfloat16"


def test_one_screen_with_many_images_and_boxes():
    boxes = [Box([1.0, 2, 3, torch.nan], 1, "bee", "not finite") for _ in range(50)]
    images = [Image(i, f"{i}.png", str(i), (9, 9), 0, 243, boxes=boxes) for i in range(30)]
    found = Finding(
        5, LOSS, {"loss_cls": torch.inf}, "float32", "cpu", images=images, num_images=40
    )
    lines = str(found).splitlines()
    assert len(lines) < 24 and any("and 47 more" in x for x in lines)
    assert any("and 27 more" in x for x in lines)
    assert found.as_plain()["losses"] == {"loss_cls": "inf"}
