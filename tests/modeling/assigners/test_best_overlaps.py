"""Row and column maxima in chunks against those of Detectron2's whole IoU matrix, bit for bit."""

import pytest
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import Boxes, pairwise_iou
from support.batches import make_instances

from retina_plugin.modeling.assigners import best_overlaps as module
from retina_plugin.modeling.assigners.best_overlaps import best_overlaps

HEIGHT, WIDTH = 96, 128


def anchors(stride=8):
    generator = DefaultAnchorGenerator(
        sizes=[[8.0, 20.0, 51.0]], aspect_ratios=[[0.5, 1.0, 2.0]], strides=[stride], offset=0.5
    )
    (boxes,) = generator([torch.zeros(1, 1, HEIGHT // stride, WIDTH // stride)])
    return boxes.tensor


def expected_of(boxes, anchors):
    """From the whole matrix, as Detectron2's ``Matcher`` takes them."""
    iou = pairwise_iou(Boxes(boxes), Boxes(anchors))
    best, box = iou.max(dim=0)
    met = iou[(iou > 0).any(dim=1)]
    return best, box, (met == met.amax(dim=1, keepdim=True)).any(dim=0)


@pytest.fixture(params=["culled", "whole"])
def cull(request):
    return request.param == "culled"


@pytest.fixture(params=[1, 1 << 12, 1 << 24])
def chunks(request, monkeypatch):
    """Chunks of one anchor, some, all."""
    monkeypatch.setattr(module, "_PAIRS", request.param)
    monkeypatch.setattr(module, "_PAIRS_ON_DEVICE", request.param)
    monkeypatch.setattr(module, "_LEAST_CHUNK", 1)


def assert_equal(boxes, anchors, cull):
    for found, expected in zip(
        best_overlaps(boxes, anchors, cull=cull), expected_of(boxes, anchors), strict=True
    ):
        assert torch.equal(found, expected)


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("count", [1, 2, 30, 300])
def test_equals_the_whole_matrix(count, cull):
    assert_equal(make_instances(count, HEIGHT, WIDTH).gt_boxes.tensor, anchors(16), cull)


@pytest.mark.usefixtures("chunks")
def test_ties(cull):
    """Boxes in one place, in whole cells: many anchors are equally good, many boxes too."""
    boxes = torch.tensor([[8.0, 8, 24, 24], [8, 8, 24, 24], [40, 40, 56, 56], [8, 8, 24, 24]])
    assert_equal(boxes, anchors(16), cull)
    best = best_overlaps(boxes, anchors(16), cull=cull)
    assert set(best.box[best.iou > 0].tolist()) == {0, 2}
    assert best.is_best.sum() > 1


@pytest.mark.parametrize(
    "box",
    [
        [500.0, 500, 520, 520],
        [-50.0, -50, -20, -20],
        [30.0, 30, 30, 60],
        [60.0, 60, 30, 30],
        [torch.nan, 0, 30, 30],
        [0.0, 0, torch.inf, torch.inf],
    ],
    ids=["beyond", "before", "no width", "inverted", "NaN", "endless"],
)
def test_strange_boxes(box, cull):
    """In front, between and behind sound ones."""
    sound = make_instances(4, HEIGHT, WIDTH).gt_boxes.tensor
    strange = torch.tensor([box])
    assert_equal(torch.cat([strange, sound, strange]), anchors(), cull)
    assert_equal(strange, anchors(), cull)


def test_anchors_without_area(cull):
    points = torch.tensor([[8.0, 8, 8, 8], [0, 0, 16, 16], [30, 30, 20, 20]])
    assert_equal(torch.tensor([[8.0, 8, 8, 8], [4, 4, 12, 12]]), points, cull)


@pytest.mark.parametrize("boxes", [0, 3])
@pytest.mark.parametrize("count", [0, 5])
def test_nothing(boxes, count, cull):
    instances = make_instances(boxes, 96, 96)
    found = best_overlaps(instances.gt_boxes.tensor, anchors()[:count], cull=cull)
    assert [len(x) for x in found] == [count] * 3
    if not boxes:
        assert not any(x.any() for x in found)


def test_memory_is_bounded(monkeypatch):
    """No chunk's matrix is larger than the bound, for any number of boxes."""
    largest = 0
    iou = module._iou

    def spy(boxes, anchors):
        nonlocal largest
        largest = max(largest, boxes.shape[1] * anchors.shape[1])
        return iou(boxes, anchors)

    monkeypatch.setattr(module, "_iou", spy)
    boxes = make_instances(3000, HEIGHT, WIDTH).gt_boxes.tensor
    best_overlaps(boxes, anchors(4), cull=True)
    assert 0 < largest <= max(module._PAIRS, 3000 * module._LEAST_CHUNK)
    largest = 0
    monkeypatch.setattr(module, "_PAIRS_ON_DEVICE", 1 << 16)
    best_overlaps(boxes, anchors(4), cull=False)
    assert 0 < largest <= 1 << 16
