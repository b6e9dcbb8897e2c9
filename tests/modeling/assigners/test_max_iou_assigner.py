"""The max-IoU assignment against Detectron2's and torchvision's, and in its corners."""

from types import SimpleNamespace

import pytest
import torch
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch import RetinaNet
from detectron2.structures import Boxes, Instances
from support.batches import make_instances
from torchvision.models.detection import _utils as torchvision_detection
from torchvision.ops import box_iou

from retina_plugin.modeling.assigners.max_iou_assigner import MaxIoUAssigner
from retina_plugin.modeling.contracts import IGNORE

K = 7


def grid(size, stride=8, height=96, width=128):
    """Square boxes of ``size`` pixels around the cells' centres."""
    y, x = torch.meshgrid(
        torch.arange(stride / 2, height, stride),
        torch.arange(stride / 2, width, stride),
        indexing="ij",
    )
    centre = torch.stack([x, y, x, y], dim=-1).view(-1, 4)
    return Boxes(centre + torch.tensor([-1.0, -1.0, 1.0, 1.0]) * size / 2)


def ground_truth(boxes, classes=None):
    boxes = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    classes = range(len(boxes)) if classes is None else classes
    return Instances(
        (96, 128), gt_boxes=Boxes(boxes), gt_classes=torch.tensor(list(classes), dtype=torch.int64)
    )


def assign_one(anchors, instances, **arguments):
    """Labels and matches of a single image with anchors of a single level."""
    targets = MaxIoUAssigner(**arguments)([Boxes(torch.tensor(anchors))], [instances], K)
    return targets.labels[0].tolist(), targets.matched[0].tolist()


ANCHORS = [grid(24), grid(48, stride=16), grid(96, stride=32)]


@pytest.mark.parametrize("low_quality", [True, False])
@pytest.mark.parametrize("count", [0, 1, 20, 400])
@pytest.mark.parametrize(
    ("thresholds", "labels"),
    [([0.4, 0.5], [0, -1, 1]), ([0.5], [0, 1]), ([0.5, 0.5], [0, -1, 1]), ([0.3, 0.6], [0, 0, 1])],
)
def test_equals_detectron2(count, thresholds, labels, low_quality):
    images = [make_instances(count, 96, 128), make_instances(3, 96, 128)]
    stock = SimpleNamespace(num_classes=K, anchor_matcher=Matcher(thresholds, labels, low_quality))
    expected_labels, expected_boxes = RetinaNet.label_anchors(stock, ANCHORS, images)
    assigner = MaxIoUAssigner(
        iou_thresholds=thresholds, iou_labels=labels, allow_low_quality_matches=low_quality
    )
    targets = assigner(ANCHORS, images, K)
    assert torch.equal(targets.labels, torch.stack(expected_labels))
    boxes = torch.stack(expected_boxes)[targets.positives.image, targets.positives.anchor]
    assert torch.equal(targets.field("gt_boxes"), boxes)


@pytest.mark.parametrize("low_quality", [True, False])
@pytest.mark.parametrize("count", [1, 20, 400])
def test_equals_torchvision(count, low_quality):
    image = make_instances(count, 96, 128)
    matcher = torchvision_detection.Matcher(0.5, 0.4, allow_low_quality_matches=low_quality)
    anchors = Boxes.cat(ANCHORS).tensor
    matches = matcher(box_iou(image.gt_boxes.tensor, anchors))
    expected = image.gt_classes[matches.clamp(min=0)]
    expected[matches == matcher.BELOW_LOW_THRESHOLD] = K
    expected[matches == matcher.BETWEEN_THRESHOLDS] = IGNORE
    targets = MaxIoUAssigner(allow_low_quality_matches=low_quality)(ANCHORS, [image], K)
    assert torch.equal(targets.labels[0], expected)
    positive = matches >= 0
    assert torch.equal(targets.matched[0][positive], matches[positive])


def test_what_the_targets_carry():
    images = [make_instances(5, 96, 128), make_instances(0, 96, 128)]
    targets = MaxIoUAssigner()(ANCHORS, images, K)
    total = sum(len(x) for x in ANCHORS)
    assert targets.labels.shape == targets.matched.shape == (2, total)
    assert targets.labels.dtype == targets.matched.dtype == torch.int64
    assert targets.level_sizes == tuple(len(x) for x in ANCHORS)
    assert torch.equal(targets.anchors, Boxes.cat(ANCHORS).tensor)
    assert targets.num_classes == K
    assert targets.labels.min() >= IGNORE
    assert targets.labels.max() == K


@pytest.mark.parametrize("labels", [[0, -1, 1], [-1, 0, 1]])
def test_no_ground_truth_is_background(labels):
    """Whatever a small overlap would mean."""
    targets = MaxIoUAssigner(iou_labels=labels)(ANCHORS, [ground_truth([])] * 3, K)
    assert (targets.labels == K).all()
    assert targets.num_positives == 0
    assert targets.field("gt_boxes").shape == (0, 4)


@pytest.mark.parametrize("count", [0, 4])
def test_no_anchors(count):
    nothing = [Boxes(torch.zeros(0, 4)), Boxes(torch.zeros(0, 4))]
    targets = MaxIoUAssigner()(nothing, [make_instances(count, 96, 128)], K)
    assert targets.labels.shape == (1, 0)
    assert len(targets.positives) == len(targets.ignored) == 0


def test_a_level_without_anchors():
    """A map of zero cells; the other levels keep their places."""
    images = [make_instances(5, 96, 128)]
    with_hole = [ANCHORS[0], Boxes(torch.zeros(0, 4)), ANCHORS[1]]
    targets = MaxIoUAssigner()(with_hole, images, K)
    plain = MaxIoUAssigner()(ANCHORS[:2], images, K)
    assert torch.equal(targets.labels, plain.labels)
    assert targets.positives.level_counts == (
        plain.positives.level_counts[0],
        0,
        plain.positives.level_counts[1],
    )


def test_thresholds_belong_to_the_upper_side():
    """IoU 1/4 and 1/2 exactly: ``[0.25, 0.5)`` is ignored, ``[0.5, 1]`` an object."""
    anchors = [[0.0, 0, 8, 8], [0.0, 0, 8, 4], [0.0, 0, 8, 2], [0.0, 0, 8, 1]]
    labels, _ = assign_one(anchors, ground_truth([[0, 0, 8, 8]], [3]), iou_thresholds=[0.25, 0.5])
    assert labels == [3, 3, IGNORE, K]


def test_low_quality_matches():
    """The best anchor of each box, however bad: all of them where several are equally bad."""
    anchors = [[0.0, 0, 8, 8], [8.0, 0, 16, 8], [40.0, 40, 48, 48]]
    between = ground_truth([[4, 0, 12, 8]], [2])  # IoU 1/3 with the first two
    assert assign_one(anchors, between)[0] == [2, 2, K]
    assert assign_one(anchors, between, allow_low_quality_matches=False)[0] == [K, K, K]


def test_a_low_quality_match_keeps_its_best_box():
    """The anchor is made an object for one box's sake, and matched to the one it overlaps more."""
    anchors = [[0.0, 0, 10, 10]]
    small_and_large = ground_truth([[0, 0, 3, 3], [0, 0, 10, 4]], [1, 5])  # IoU 0.09 and 0.4
    assert assign_one(anchors, small_and_large, iou_thresholds=[0.6, 0.7]) == ([5], [1])


def test_ties_go_to_the_first_box():
    """Two objects in one place, as in a crowd: every anchor has one label, none is lost."""
    twins = ground_truth([[0, 0, 8, 8], [0, 0, 8, 8], [0, 0, 8, 8]], [6, 2, 4])
    assert assign_one([[0.0, 0, 8, 8], [0.0, 0, 8, 7]], twins) == ([6, 6], [0, 0])


def test_a_crowd():
    """More boxes than anchors."""
    crowd = make_instances(2000, 96, 128)
    targets = MaxIoUAssigner()(ANCHORS[2:], [crowd], K)
    positives = targets.positives
    iou = box_iou(crowd.gt_boxes.tensor, targets.anchors)
    assert len(positives) > 0
    assert torch.equal(
        iou[targets.matched[0, positives.anchor], positives.anchor],
        iou.max(dim=0).values[positives.anchor],
    )
    assert torch.equal(targets.classes, crowd.gt_classes[targets.matched[0, positives.anchor]])


def test_keeps_no_gradient():
    image = make_instances(4, 96, 128)
    image.gt_boxes.tensor.requires_grad_()
    targets = MaxIoUAssigner()(ANCHORS, [image], K)
    assert not targets.labels.requires_grad
    assert not targets.matched.requires_grad


def test_changes_nothing():
    image = make_instances(4, 96, 128)
    boxes, classes = image.gt_boxes.tensor.clone(), image.gt_classes.clone()
    MaxIoUAssigner()(ANCHORS, [image], K)
    assert torch.equal(image.gt_boxes.tensor, boxes)
    assert torch.equal(image.gt_classes, classes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"iou_labels": [0, 1]}, "IOU_LABELS needs one label"),
        ({"iou_labels": [0, -2, 1]}, "IOU_LABELS needs one label"),
        ({"iou_thresholds": [0.5, 0.4]}, r"IOU_THRESHOLDS.*\[0.5, 0.4\]"),
        ({"iou_thresholds": [0.0, 0.5]}, r"IOU_THRESHOLDS.*\[0.0, 0.5\]"),
        ({"iou_thresholds": [0.4, 5]}, r"IOU_THRESHOLDS.*\[0.4, 5\]"),
        ({"iou_thresholds": [], "iou_labels": [1]}, r"IOU_THRESHOLDS.*\[\]"),
    ],
)
def test_wrong_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        MaxIoUAssigner(**arguments)


@pytest.mark.parametrize(
    "box", [[500.0, 500.0, 520.0, 520.0], [30.0, 30.0, 30.0, 60.0]], ids=["outside", "no width"]
)
def test_a_box_that_meets_no_anchor_makes_none_an_object(box):
    instances = ground_truth([box, [8.0, 8.0, 40.0, 40.0]])
    targets = MaxIoUAssigner()(ANCHORS, [instances], K)
    alone = MaxIoUAssigner()(ANCHORS, [instances[1:]], K)
    assert torch.equal(targets.labels == K, alone.labels == K)
    assert targets.num_positives > 0 and not (targets.labels == 0).any()
