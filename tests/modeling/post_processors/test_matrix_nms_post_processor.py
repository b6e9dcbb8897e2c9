"""Matrix NMS against a plain loop over SOLOv2's equations."""

import math

import pytest
import torch
from detectron2.modeling import build_model
from support.batches import make_batch
from support.tiny_models import tiny_focal_cfg
from torchvision.ops import box_iou

from retina_plugin.modeling.coders.delta_coder import DeltaCoder
from retina_plugin.modeling.post_processors import (
    MatrixNMSPostProcessor,
    matrix_nms_post_processor,
)

NODE = "MODEL.RETINANET.POST_PROCESSOR.MatrixNMSPostProcessor"


def make_processor(**arguments):
    return MatrixNMSPostProcessor(coder=DeltaCoder(), num_classes=3, **arguments)


def make_image(num_boxes, num_classes=3):
    corner = torch.rand(num_boxes, 2) * 60
    boxes = torch.cat([corner, corner + 20 + torch.rand(num_boxes, 2) * 40], dim=1)
    return boxes, torch.rand(num_boxes) * 0.9 + 0.1, torch.randint(num_classes, (num_boxes,))


def plain_matrix_nms(boxes, scores, groups, method, sigma):
    """Equations 4 and 5, one pair after the other."""

    def f(iou):
        return math.exp(-iou * iou / sigma) if method == "gaussian" else 1 - iou

    iou = box_iou(boxes, boxes).tolist()
    scores, groups = scores.tolist(), groups.tolist()
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    reduced = list(scores)
    for place, j in enumerate(order):
        decay = 1.0
        for above, i in enumerate(order[:place]):
            if groups[i] != groups[j]:
                continue
            most = max((iou[k][i] for k in order[:above] if groups[k] == groups[i]), default=0.0)
            decay = min(decay, f(iou[i][j]) / f(most))
        reduced[j] *= decay
    return reduced


@pytest.mark.parametrize("block", [1, 7, 1024])
@pytest.mark.parametrize("num_classes", [1, 3])
@pytest.mark.parametrize(("method", "sigma"), [("gaussian", 0.5), ("gaussian", 0.1), ("linear", 1)])
def test_equals_the_papers_equations(method, sigma, num_classes, block, monkeypatch):
    """Images of different numbers of boxes, none among them; blocks of any size."""
    monkeypatch.setattr(matrix_nms_post_processor, "_BLOCK", block)
    images = [make_image(n, num_classes) for n in (40, 0, 1, 15)]
    processor = make_processor(method=method, sigma=sigma, min_score=0.0, max_detections=1000)
    kept = processor.suppress(*zip(*images, strict=True))
    for image, (index, scores) in zip(images, kept, strict=True):
        expected = torch.tensor(plain_matrix_nms(*image, method, sigma))
        assert sorted(index.tolist()) == list(range(len(expected)))
        torch.testing.assert_close(scores, expected[index])
        assert torch.equal(scores, scores.sort(descending=True).values)
    assert not torch.equal(kept[0][1], images[0][1][kept[0][0]])  # some were reduced


@pytest.mark.parametrize("method", ["gaussian", "linear"])
def test_copies_of_a_box(method):
    """The first of equal scores is the best; a linear factor of 0 does not become 0 / 0."""
    box = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    boxes, scores = torch.cat([box, box, box, box + 20]), torch.full((4,), 0.5)
    groups = torch.zeros(4, dtype=torch.int64)
    ((index, reduced),) = make_processor(method=method, min_score=0.0).suppress(
        [boxes], [scores], [groups]
    )
    assert index[:2].tolist() == [0, 3] and reduced[:2].tolist() == [0.5, 0.5]
    left = 0.5 * math.exp(-1 / 0.5)  # f(1) / f(0), as the first suppresses both copies
    assert reduced[2:].tolist() == pytest.approx([left, left] if method == "gaussian" else [])


def test_a_suppressed_box_suppresses_less():
    """Of three in a row the last overlaps only the middle one, which the first reduced."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [5.0, 0, 15, 10], [10.0, 0, 20, 10]])
    scores, groups = torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3, dtype=torch.int64)
    ((index, reduced),) = make_processor(method="linear").suppress([boxes], [scores], [groups])
    assert dict(zip(index.tolist(), reduced.tolist(), strict=True)) == pytest.approx(
        {0: 0.9, 1: 0.8 * 2 / 3, 2: 0.7}  # (1 - 1/3) / (1 - 1/3) = 1
    )


@pytest.mark.parametrize("broken", [math.nan, math.inf, 5.0])
def test_boxes_without_an_iou_touch_no_other(broken):
    boxes, scores, groups = make_image(20)
    ((_, expected),) = make_processor().suppress([boxes], [scores], [groups])
    odd = torch.full((2, 4), broken)
    with_odd = (
        torch.cat([odd, boxes]),
        torch.cat([torch.ones(2), scores]),
        groups[[0, 0, *range(20)]],
    )
    ((_, reduced),) = make_processor().suppress(*([x] for x in with_odd))
    assert reduced[:2].tolist() == [1, 1]
    assert torch.equal(reduced[2:], expected)


def test_the_best_of_those_above_the_least():
    image = make_image(60)
    ((_, everything),) = make_processor(max_detections=60, min_score=0.2).suppress(
        *([x] for x in image)
    )
    assert (everything > 0.2).all() and len(everything) < 60
    ((_, few),) = make_processor(max_detections=5, min_score=0.2).suppress(*([x] for x in image))
    assert torch.equal(few, everything[:5])


def test_half_precision_becomes_fp32():
    boxes, scores, groups = make_image(20)
    ((_, reduced),) = make_processor().suppress([boxes], [scores.bfloat16()], [groups])
    assert reduced.dtype == torch.float32


def test_one_line_of_config():
    cfg = tiny_focal_cfg()
    cfg.MODEL.RETINANET.POST_PROCESSOR.NAME = "MatrixNMSPostProcessor"
    cfg.merge_from_list([f"{NODE}.METHOD", "linear", f"{NODE}.MIN_SCORE", 0.0])
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST = 0.001
    model = build_model(cfg).eval()
    with torch.no_grad():
        found = model(make_batch((1, 1), ((64, 64),)))
    assert all(len(x["instances"]) > 0 for x in found)
