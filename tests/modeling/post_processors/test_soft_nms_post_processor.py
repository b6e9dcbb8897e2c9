"""Soft-NMS against a plain implementation of the paper's pseudocode."""

import copy
import math
import pickle
from functools import partial

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes
from support.batches import make_batch
from support.tiny_models import tiny_focal_cfg

from retina_plugin import add_retina_config
from retina_plugin.modeling.coders.delta_coder import DeltaCoder
from retina_plugin.modeling.post_processors import NMSPostProcessor, SoftNMSPostProcessor
from retina_plugin.modeling.post_processors.soft_nms_post_processor import linear_decay, soft_nms

NODE = "MODEL.RETINANET.POST_PROCESSOR.SoftNMSPostProcessor"


def make_processor(**arguments):
    return SoftNMSPostProcessor(coder=DeltaCoder(), num_classes=3, **arguments)


def make_image(num_boxes, num_classes=3):
    """Boxes that overlap a lot; the scores differ."""
    corner = torch.rand(num_boxes, 2) * 60
    boxes = torch.cat([corner, corner + 20 + torch.rand(num_boxes, 2) * 40], dim=1)
    return boxes, torch.rand(num_boxes) * 0.9 + 0.1, torch.randint(num_classes, (num_boxes,))


def plain_iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return width * height / (sum(areas) - width * height)


def plain_soft_nms(boxes, scores, classes, *, method, sigma, nms_thresh, min_score, count):
    """Figure 2 of the paper, one box after the other; pairs of index and score."""
    boxes, classes = boxes.tolist(), classes.tolist()
    left = dict(enumerate(scores.tolist()))
    taken = []
    while left and len(taken) < count:
        best = max(left, key=lambda i: (left[i], -i))
        score = left.pop(best)
        if score <= min_score:
            break
        taken.append((best, score))
        for other in left:
            iou = plain_iou(boxes[best], boxes[other])
            if classes[best] != classes[other]:
                continue
            if method == "gaussian":
                left[other] *= math.exp(-iou * iou / sigma)
            elif iou > nms_thresh:
                left[other] *= 1 - iou
    return taken


@pytest.mark.parametrize("count", [7, 1000])
@pytest.mark.parametrize("num_classes", [1, 3])
@pytest.mark.parametrize(
    ("method", "sigma", "nms_thresh"),
    [("gaussian", 0.5, 0.5), ("gaussian", 0.05, 0.5), ("linear", 0.5, 0.3), ("linear", 0.5, 0.0)],
)
def test_equals_the_papers_pseudocode(method, sigma, nms_thresh, num_classes, count):
    """Images of different numbers of boxes, none among them, in one batch."""
    settings = {"method": method, "sigma": sigma, "nms_thresh": nms_thresh, "min_score": 0.05}
    images = [make_image(n, num_classes) for n in (60, 0, 1, 25)]
    processor = make_processor(max_detections=count, **settings)
    kept = processor.suppress(*zip(*images, strict=True))
    for image, (index, scores) in zip(images, kept, strict=True):
        expected = plain_soft_nms(*image, count=count, **settings)
        assert index.tolist() == [i for i, _ in expected]
        torch.testing.assert_close(scores, torch.tensor([s for _, s in expected]))
    index, scores = kept[0]
    assert len(index) == 7 or not torch.equal(scores, images[0][1][index])  # some were reduced


def test_of_equal_scores_the_first_is_taken():
    square = torch.tensor([0.0, 0.0, 8.0, 8.0])
    boxes = torch.stack([square, square + 100, square, square, square + 100])
    scores = torch.full((5,), 0.5)
    ((index, reduced),) = make_processor(method="linear", min_score=0).suppress(
        [boxes], [scores], [torch.tensor([0, 0, 0, 1, 1])]
    )
    assert index.tolist() == [0, 1, 3, 4]  # 2 covers 0, of the same class, and fell to 0
    assert reduced.tolist() == [0.5] * 4


def two_boxes(iou):
    """Two boxes of that IoU, of the scores 0.75 and 0.5."""
    width = 16.0 * (1 - iou) / (1 + iou)  # what sticks out at either side
    boxes = torch.tensor([[0.0, 0.0, 16.0, 16.0], [width, 0.0, 16.0 + width, 16.0]])
    return [boxes], [torch.tensor([0.75, 0.5])], [torch.zeros(2, dtype=torch.int64)]


def test_gaussian_of_two():
    ((_, scores),) = make_processor(sigma=0.3).suppress(*two_boxes(0.6))
    torch.testing.assert_close(scores, torch.tensor([0.75, 0.5 * math.exp(-0.36 / 0.3)]))


@pytest.mark.parametrize(("nms_thresh", "left"), [(0.6, 1.0), (0.599, 0.4), (0.601, 1.0)])
def test_linear_of_two(nms_thresh, left):
    """At the threshold nothing is lost, as in hard NMS."""
    processor = make_processor(method="linear", nms_thresh=nms_thresh)
    ((_, scores),) = processor.suppress(*two_boxes(0.6))
    torch.testing.assert_close(scores, torch.tensor([0.75, 0.5 * left]))


@pytest.mark.parametrize(("min_score", "count"), [(0.19, 2), (0.21, 1), (0.8, 0)])
def test_reduced_scores_below_the_least_go(min_score, count):
    processor = make_processor(method="linear", min_score=min_score)
    ((index, _),) = processor.suppress(*two_boxes(0.6))  # 0.5 falls to 0.2
    assert len(index) == count


@pytest.mark.parametrize("method", ["gaussian", "linear"])
@pytest.mark.parametrize("broken", [math.nan, math.inf, 5.0])
def test_boxes_without_an_iou_touch_no_other(broken, method):
    """NaN, infinite and of no area at all."""
    boxes, scores, classes = make_image(20)
    expected = make_processor(method=method).suppress([boxes], [scores], [classes])[0][1]
    odd = torch.full((2, 4), broken)
    ((_, reduced),) = make_processor(method=method).suppress(
        [torch.cat([odd, boxes])],
        [torch.cat([torch.ones(2), scores])],
        [classes[[0, 0, *range(20)]]],
    )
    assert reduced[:2].tolist() == [1, 1]
    assert torch.equal(reduced[2:], expected)


def test_changes_nothing():
    batch = [x[None] for x in make_image(20)]
    before = [x.clone() for x in batch]
    soft_nms(*batch, decay=partial(linear_decay, nms_thresh=0), max_detections=20)
    assert all(torch.equal(a, b) for a, b in zip(batch, before, strict=True))


def test_keeps_no_graph():
    """A hundred steps of it, were the model called outside ``no_grad``."""
    boxes, scores, classes = make_image(20)
    ((_, reduced),) = make_processor().suppress([boxes], [scores.requires_grad_()], [classes])
    assert not reduced.requires_grad


def test_scores_of_half_precision_become_fp32():
    boxes, scores, classes = make_image(20)
    ((_, reduced),) = make_processor().suppress([boxes], [scores.bfloat16()], [classes])
    assert reduced.dtype == torch.float32


def test_no_detections_asked_for():
    boxes, scores, groups = (x[None] for x in make_image(5))
    decay = partial(linear_decay, nms_thresh=0.5)
    index, reduced = soft_nms(boxes, scores, groups, decay=decay, max_detections=0)
    assert index.shape == reduced.shape == (1, 0)


def make_maps():
    logits = torch.randn(2, 2 * 3, 6, 8) * 2 - 1
    corner = torch.rand(6 * 8 * 2, 2) * 50
    anchors = Boxes(torch.cat([corner, corner + 30], dim=1))
    return [logits], [torch.randn(2, 2 * 4, 6, 8) * 0.1], [anchors], [(64, 80)] * 2


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_all_but_the_suppression_is_shared(class_agnostic):
    """Where nothing overlaps enough, hard and soft NMS find the same."""
    maps = make_maps()
    settings = {"nms_thresh": 1.0, "topk_per_level": [50], "max_detections": 40}
    hard = NMSPostProcessor(coder=DeltaCoder(), num_classes=3, **settings)(*maps)
    soft = make_processor(method="linear", class_agnostic=class_agnostic, **settings)(*maps)
    for expected, found in zip(hard, soft, strict=True):
        assert len(found) == 40
        assert torch.equal(found.scores, expected.scores)
        assert torch.equal(found.pred_classes, expected.pred_classes)
        assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)


def test_class_agnostic_loses_more():
    maps = make_maps()
    by_class, agnostic = (make_processor(class_agnostic=x)(*maps) for x in (False, True))
    for ours, theirs in zip(agnostic, by_class, strict=True):
        assert ours.pred_classes.unique().numel() > 1
        assert ours.scores.sum() < theirs.scores.sum()


def test_nothing_found():
    logits, *rest = make_maps()
    for found in make_processor()([x - 1000 for x in logits], *rest):
        assert len(found) == 0
        assert found.pred_boxes.tensor.shape == (0, 4)


@pytest.mark.parametrize("extended", [True, False])
def test_one_line_of_config(extended):
    cfg = tiny_focal_cfg(False)
    if extended:
        add_retina_config(cfg)
        cfg.merge_from_list(["MODEL.RETINANET.POST_PROCESSOR.NAME", "SoftNMSPostProcessor"])
    else:
        cfg.MODEL.RETINANET.POST_PROCESSOR = type(cfg)({"NAME": "SoftNMSPostProcessor"})
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST = 0.001
    model = build_model(cfg).eval()
    with torch.no_grad():
        found = model(make_batch((1, 1)))
    assert all(len(x["instances"]) > 0 for x in found)


def test_settings_reach_it():
    cfg = tiny_focal_cfg()
    cfg.MODEL.RETINANET.POST_PROCESSOR.NAME = "SoftNMSPostProcessor"
    cfg.merge_from_list([f"{NODE}.METHOD", "linear", f"{NODE}.MIN_SCORE", 0.25])
    cfg.merge_from_list(["MODEL.RETINANET.NMS_THRESH_TEST", 0.55])
    processor = build_model(cfg).post_processor
    ((_, scores),) = processor.suppress(*two_boxes(0.6))
    assert scores.tolist() == [0.75]  # 0.5 fell to 0.2
    ((_, scores),) = processor.suppress(*two_boxes(0.54))
    assert scores.tolist() == [0.75, 0.5]


def test_copies_and_pickles():
    processor = make_processor(method="linear")
    for twin in (copy.deepcopy(processor), pickle.loads(pickle.dumps(processor))):
        ((_, scores),) = twin.suppress(*two_boxes(0.6))
        torch.testing.assert_close(scores, torch.tensor([0.75, 0.2]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"nms_thresh": 50}, "NMS_THRESH_TEST.*50"),
        ({"topk_per_level": [-5]}, rf"{NODE}.TOPK_PER_LEVEL.*\[-5\]"),
    ],
)
def test_wrong_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_processor(**arguments)
