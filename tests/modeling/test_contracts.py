"""Selections and targets: the one place where flat anchor indices meet the head's raw maps."""

import pytest
import torch
from detectron2.modeling.meta_arch.dense_detector import permute_to_N_HWA_K
from detectron2.structures import Boxes, Instances
from support.dense_cases import make_case, make_targets

from retina_plugin.modeling.coders.delta_coder import DeltaCoder
from retina_plugin.modeling.contracts import IGNORE, DenseTargets, PositiveBoxes

COUNTS = (2, 1, 3)
SIZES = ((3, 5), (2, 2), (1, 1))
LEVEL_SIZES = tuple(a * h * w for a, (h, w) in zip(COUNTS, SIZES, strict=True))
R = sum(LEVEL_SIZES)


def numbered_maps(dim, num_images=2):
    """Raw maps in which no value occurs twice, and the same flattened by Detectron2."""
    maps, start = [], 0
    for a, (h, w) in zip(COUNTS, SIZES, strict=True):
        size = num_images * a * dim * h * w
        maps.append(torch.arange(start, start + size).view(num_images, a * dim, h, w))
        start += size
    return maps, torch.cat([permute_to_N_HWA_K(x, dim) for x in maps], dim=1)


def targets_of(labels, num_classes=3):
    return make_targets(torch.as_tensor(labels), LEVEL_SIZES, num_classes)


@pytest.mark.parametrize("dim", [1, 3, 4])
def test_gather_equals_flattening(dim):
    maps, flat = numbered_maps(dim)
    selection = targets_of(torch.full((2, R), 3)).select(torch.rand(2, R) < 0.4)
    assert 0 < len(selection) < 2 * R
    expected = flat[selection.image, selection.anchor]
    assert torch.equal(selection.gather(maps, dim), expected)


def test_every_anchor_in_order():
    everything = targets_of(torch.zeros(2, R, dtype=torch.int64)).positives
    assert everything.anchor.tolist() == [r for r in range(R) for _ in range(2)]
    assert everything.image.tolist() == [0, 1] * R
    assert everything.level_counts == tuple(2 * x for x in LEVEL_SIZES)
    assert everything.level_starts == (0, LEVEL_SIZES[0], LEVEL_SIZES[0] + LEVEL_SIZES[1])


@pytest.mark.parametrize("level", range(len(COUNTS)))
def test_levels_without_a_selected_anchor(level):
    mask = torch.ones(2, R, dtype=torch.bool)
    start = sum(LEVEL_SIZES[:level])
    mask[:, start : start + LEVEL_SIZES[level]] = False
    selection = targets_of(torch.zeros(2, R, dtype=torch.int64)).select(mask)
    assert selection.level_counts[level] == 0
    assert sum(selection.level_counts) == len(selection) == mask.sum()
    maps, flat = numbered_maps(4)
    expected = flat[selection.image, selection.anchor]
    assert torch.equal(selection.gather(maps, 4), expected)


def test_nothing_selected():
    selection = targets_of(torch.full((2, R), 3)).positives
    assert len(selection) == 0
    assert selection.level_counts == (0, 0, 0)
    assert selection.gather(numbered_maps(4)[0], 4).shape == (0, 4)


def test_gradients_reach_what_was_gathered():
    maps = [
        torch.randn(2, a * 4, h, w, requires_grad=True)
        for a, (h, w) in zip(COUNTS, SIZES, strict=True)
    ]
    selection = targets_of(torch.full((2, R), 3)).select(torch.rand(2, R) < 0.4)
    selection.gather(maps, 4).sum().backward()
    hit = torch.cat([permute_to_N_HWA_K(x.grad, 4) for x in maps], dim=1)
    expected = torch.zeros(2, R, 4)
    expected[selection.image, selection.anchor] = 1
    assert torch.equal(hit, expected)


def test_labels_sort_the_anchors():
    case = make_case()
    targets = case.targets
    labels, k = targets.labels, targets.num_classes
    positives, ignored = targets.positives, targets.ignored
    assert len(positives) == targets.num_positives == ((labels >= 0) & (labels < k)).sum()
    assert len(ignored) == (labels == IGNORE).sum()
    assert (labels[ignored.image, ignored.anchor] == IGNORE).all()
    assert torch.equal(targets.classes, labels[positives.image, positives.anchor])
    assert targets.classes.min() >= 0
    assert targets.classes.max() < k


def test_num_positives_is_a_tensor():
    """A number would make the GPU wait."""
    assert isinstance(make_case().targets.num_positives, torch.Tensor)


def image(count, **fields):
    boxes = torch.rand(count, 4).sort(dim=1).values * 50
    classes = torch.zeros(count, dtype=torch.int64)
    return Instances((64, 64), gt_boxes=Boxes(boxes), gt_classes=classes, **fields)


def targets_with(instances, labels, matched):
    return DenseTargets(
        labels=torch.tensor(labels),
        matched=torch.tensor(matched),
        instances=instances,
        anchors=torch.zeros(4, 4),
        level_sizes=(3, 1),
        num_classes=3,
    )


def test_fields_of_the_matched_ground_truth():
    """Any ``gt_*`` field that the data set brings, for positives only, in their order."""
    weights = [torch.tensor([1.0, 2.0]), torch.tensor([]), torch.tensor([10.0, 20.0, 30.0])]
    instances = [image(len(w), gt_weight=w, gt_meta=w[:, None] * torch.ones(5)) for w in weights]
    targets = targets_with(
        instances,
        labels=[[0, 3, -1, 2], [3, 3, 3, 3], [3, 1, 3, 0]],
        matched=[[1, 0, 0, 0], [99, 99, 99, 99], [0, 2, 0, 1]],  # 99: no object, undefined
    )
    assert targets.positives.anchor.tolist() == [0, 1, 3, 3]
    assert targets.positives.image.tolist() == [0, 2, 0, 2]
    assert targets.field("gt_weight").tolist() == [2, 30, 1, 20]
    assert targets.field("gt_meta").shape == (4, 5)
    boxes = [instances[i].gt_boxes.tensor[m] for i, m in ((0, 1), (2, 2), (0, 0), (2, 1))]
    assert torch.equal(targets.field("gt_boxes"), torch.stack(boxes))


def test_a_missing_field_names_those_there_are():
    targets = targets_with([image(1)], labels=[[0, 3, 3, 3]], matched=[[0, 0, 0, 0]])
    with pytest.raises(KeyError, match="no field 'gt_weight', only: gt_boxes, gt_classes"):
        targets.field("gt_weight")


def test_fields_without_any_ground_truth():
    targets = targets_with([image(0), image(0)], labels=[[3] * 4] * 2, matched=[[0] * 4] * 2)
    assert targets.field("gt_boxes").shape == (0, 4)
    assert targets.field("gt_classes").shape == (0,)


def test_positive_boxes_speak_both_languages():
    anchors = torch.tensor([[0.0, 0, 10, 10]])
    gt_boxes = torch.tensor([[2.0, 2, 12, 12]])
    coder = DeltaCoder()
    right = coder.encode(anchors, gt_boxes)
    found = PositiveBoxes(deltas=right, anchors=anchors, gt_boxes=gt_boxes, coder=coder)
    assert torch.equal(found.gt_deltas, right)
    torch.testing.assert_close(found.boxes, gt_boxes)
