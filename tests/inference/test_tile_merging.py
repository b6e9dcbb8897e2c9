"""Tiles share out what they found: nothing is lost, what two of them see comes once."""

import pytest
import torch
from detectron2.layers import batched_nms

from retina_plugin.data.tiling import covering_spans
from retina_plugin.inference.tile_merging import is_owned, owned_spans, suppress_across_tiles


def test_owned_spans_by_hand():
    first, middle, last = owned_spans([(0, 100), (60, 160), (120, 215)])
    assert (first.low, first.high, first.slack_low, first.slack_high) == (0, 80, 0, 5)
    assert (middle.low, middle.high, middle.slack_low, middle.slack_high) == (80, 140, 5, 5)
    assert (last.low, last.high, last.slack_low, last.slack_high) == (140, 215, 5, 0)
    (only,) = owned_spans([(0, 100)])
    assert only == (0, 100, 0, 100, 0, 0)


def seen(starts, ends, span):
    """What of the intervals a tile sees, as boxes of one pixel's height, and which it sees."""
    starts, ends = starts.clamp(min=span.start), ends.clamp(max=span.end)
    boxes = torch.stack([starts, torch.zeros_like(starts), ends, torch.ones_like(ends)], dim=1)
    return boxes, ends > starts


@pytest.mark.parametrize("overlap", [0, 1, 40, 90])
@pytest.mark.parametrize("length", [431, 1000, 2117])
@pytest.mark.parametrize("stride", [1, 32])
def test_every_object_is_reported(length, overlap, stride):
    """All of it, and whole if it is no longer than the overlap."""
    (row,) = owned_spans([(0, 1)])
    spans = owned_spans(covering_spans(length, 200, overlap, stride))
    sizes = torch.randint(1, 500, (400,))
    starts = torch.rand(400).mul((length - sizes).clamp(min=0)).floor()
    ends = (starts + sizes).clamp(max=length)
    covered = torch.zeros(400, length, dtype=torch.bool)
    whole = torch.zeros(400, dtype=torch.int64)
    parts = torch.zeros(400, dtype=torch.int64)
    pixels = torch.arange(length)
    for span in spans:
        boxes, visible = seen(starts, ends, span)
        owned = is_owned(boxes, span, row) & visible
        covered |= owned[:, None] & (pixels >= boxes[:, :1]) & (pixels < boxes[:, 2:3])
        is_whole = (boxes[:, 0] == starts) & (boxes[:, 2] == ends)
        whole += owned & is_whole
        parts += owned & ~is_whole
    all_of_it = (pixels >= starts[:, None]) & (pixels < ends[:, None])
    assert torch.equal(covered, all_of_it)
    short = ends - starts <= overlap
    assert (whole[short] >= 1).all()
    assert (whole + parts >= 1).all()
    # one exactly as long as the overlap may come in part as well, and that one is dropped later
    assert (parts[ends - starts < overlap] == 0).all()
    assert overlap < 40 or whole.max() == 2  # the slack's


def test_a_box_that_is_off_is_not_left_to_the_other():
    """In each of two tiles the middle seems to be the other's."""
    (row,) = owned_spans([(0, 50)])
    left, right = owned_spans([(0, 100), (60, 160)])
    assert is_owned(torch.tensor([[71.0, 10, 91, 30]]), left, row).item()  # border at 80
    assert is_owned(torch.tensor([[69.0, 10, 89, 30]]), right, row).item()
    assert not is_owned(torch.tensor([[80.0, 10, 92, 30]]), left, row).item()
    # cut off: what is visible may reach beyond, but the other tile sees more of it
    assert not is_owned(torch.tensor([[61.0, 10, 100, 30]]), left, row).item()
    assert is_owned(torch.tensor([[61.0, 10, 99 - 0.1, 30]]), left, row).item()


def random_detections(count, classes=3):
    corners = torch.rand(count, 2) * 150
    boxes = torch.cat([corners, corners + torch.rand(count, 2) * 60 + 5], dim=1)
    scores = torch.randperm(count).float().add(1).div(count + 1)  # no two alike
    return boxes, scores, torch.randint(classes, (count,)), torch.randint(5, (count,))


@pytest.mark.parametrize("max_detections", [10, 1000])
def test_after_plain_suppression_it_is_suppression_of_all(max_detections):
    boxes, scores, classes, tiles = random_detections(800)
    own = batched_nms(boxes, scores, classes + 3 * tiles, 0.5)  # each tile's detector
    boxes, scores, classes, tiles = (x[own] for x in (boxes, scores, classes, tiles))
    kept = suppress_across_tiles(
        boxes, scores, classes, tiles, iou_thresh=0.5, max_detections=max_detections
    )
    expected = batched_nms(boxes, scores, classes, 0.5)
    assert 10 < len(expected) < len(boxes)
    assert torch.equal(kept, expected[:max_detections])


def test_within_a_tile_all_stays():
    boxes, scores, classes, _ = random_detections(200)
    kept = suppress_across_tiles(
        boxes, scores, classes, torch.zeros(200).long(), iou_thresh=0.3, max_detections=200
    )
    assert torch.equal(kept, scores.argsort(descending=True))


def test_groups_and_no_detections():
    box = torch.tensor([[0.0, 0, 10, 10]] * 3)
    scores, tiles = torch.tensor([0.0, 0.7, 0.8]), torch.tensor([0, 1, 2])
    options = {"iou_thresh": 0.5, "max_detections": 5}
    kept = suppress_across_tiles(box, scores, torch.tensor([4, 7, 4]), tiles, **options)
    assert kept.tolist() == [2, 1]
    none = suppress_across_tiles(box[:0], scores[:0], tiles[:0], tiles[:0], **options)
    assert none.tolist() == [] and none.dtype == torch.int64
