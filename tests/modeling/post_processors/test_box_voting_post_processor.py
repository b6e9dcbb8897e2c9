"""Box voting against a plain loop, and against the NMS that it adds to."""

import math

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes
from support.batches import make_batch
from support.tiny_models import tiny_focal_cfg
from torchvision.ops import box_iou

from retina_plugin.modeling.coders.delta_coder import DeltaCoder
from retina_plugin.modeling.post_processors import BoxVotingPostProcessor, NMSPostProcessor
from retina_plugin.modeling.post_processors.box_voting_post_processor import vote

NODE = "MODEL.RETINANET.POST_PROCESSOR.BoxVotingPostProcessor"


def make_processor(**arguments):
    return BoxVotingPostProcessor(coder=DeltaCoder(), num_classes=3, **arguments)


def make_image(num_boxes, num_classes=3):
    corner = torch.rand(num_boxes, 2) * 40
    boxes = torch.cat([corner, corner + 30 + torch.rand(num_boxes, 2) * 30], dim=1)
    return boxes, torch.rand(num_boxes), torch.randint(num_classes, (num_boxes,))


def make_maps():
    logits = torch.randn(2, 2 * 3, 6, 8) * 2 - 1
    corner = torch.rand(6 * 8 * 2, 2) * 50
    anchors = Boxes(torch.cat([corner, corner + 30], dim=1))
    return [logits], [torch.randn(2, 2 * 4, 6, 8) * 0.1], [anchors], [(64, 80)] * 2


def plain_vote(boxes, scores, groups, keep, thresh):
    iou = box_iou(boxes, boxes)
    moved = []
    for i in keep.tolist():
        total, weight = torch.zeros(4), 0.0
        for j in range(len(boxes)):
            if groups[j] == groups[i] and iou[i, j] > thresh:
                total, weight = total + scores[j] * boxes[j], weight + scores[j]
        moved.append(total / weight)
    return torch.stack(moved)


@pytest.mark.parametrize("thresh", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("num_classes", [1, 3])
def test_equals_the_plain_loop(num_classes, thresh):
    image = make_image(40, num_classes)
    keep = torch.tensor([3, 17, 0, 39])
    found = vote(*image, keep, vote_thresh=thresh)
    torch.testing.assert_close(found, plain_vote(*image, keep, thresh))
    assert not torch.equal(found, image[0][keep])


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_only_the_boxes_change(class_agnostic):
    maps = make_maps()
    settings = {"nms_thresh": 0.4, "class_agnostic": class_agnostic}
    hard = NMSPostProcessor(coder=DeltaCoder(), num_classes=3, **settings)(*maps)
    voted = make_processor(**settings)(*maps)
    for expected, found in zip(hard, voted, strict=True):
        assert len(found) > 5
        assert torch.equal(found.scores, expected.scores)
        assert torch.equal(found.pred_classes, expected.pred_classes)
        moved = (found.pred_boxes.tensor - expected.pred_boxes.tensor).abs().amax(dim=1)
        assert (moved > 0.1).any() and moved.max() < 30


def test_alone_a_box_stays():
    """Nothing overlaps by more than the threshold but itself."""
    maps = make_maps()
    settings = {"nms_thresh": 0.5}
    hard = NMSPostProcessor(coder=DeltaCoder(), num_classes=3, **settings)(*maps)
    for expected, found in zip(
        hard, make_processor(vote_thresh=0.999, **settings)(*maps), strict=True
    ):
        torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor)


def test_scores_weigh():
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [2.0, 0.0, 12.0, 10.0]])
    scores, groups = torch.tensor([0.9, 0.3]), torch.zeros(2, dtype=torch.int64)
    found = vote(boxes, scores, groups, torch.tensor([0]), vote_thresh=0.5)
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.0, 10.5, 10.0]]))


@pytest.mark.parametrize("broken", [math.nan, math.inf, 5.0])
def test_boxes_without_an_iou_neither_vote_nor_move(broken):
    boxes, scores, groups = make_image(20)
    keep = torch.tensor([4, 5])
    expected = vote(boxes, scores, groups, keep, vote_thresh=0.3)
    boxes = torch.cat([boxes, torch.full((1, 4), broken)])
    scores, groups = torch.cat([scores, torch.ones(1)]), torch.cat([groups, groups[4:5]])
    keep = torch.tensor([4, 5, 20])
    found = vote(boxes, scores, groups, keep, vote_thresh=0.3)
    torch.testing.assert_close(found[:2], expected)
    torch.testing.assert_close(found[2], boxes[20], equal_nan=True)


def test_nothing_found():
    logits, *rest = make_maps()
    for found in make_processor()([x - 1000 for x in logits], *rest):
        assert found.pred_boxes.tensor.shape == (0, 4)


def test_half_precision_scores():
    """Those of autocast, beside boxes in fp32."""
    boxes, scores, groups = make_image(20)
    found = vote(boxes, scores.bfloat16(), groups, torch.tensor([1, 2]), vote_thresh=0.5)
    assert found.dtype == torch.float32


def test_one_line_of_config():
    cfg = tiny_focal_cfg()
    cfg.MODEL.RETINANET.POST_PROCESSOR.NAME = "BoxVotingPostProcessor"
    cfg.merge_from_list([f"{NODE}.VOTE_THRESH", 0.65])
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST = 0.001
    model = build_model(cfg).eval()
    assert model.post_processor.vote_thresh == 0.65
    with torch.no_grad():
        found = model(make_batch((1, 1), ((64, 64),)))
    assert all(len(x["instances"]) > 0 for x in found)


@pytest.mark.parametrize("thresh", [-0.1, 1.0])
def test_wrong_threshold(thresh):
    with pytest.raises(ValueError, match=rf"{NODE}.VOTE_THRESH must be in \[0, 1\), got {thresh}"):
        make_processor(vote_thresh=thresh)
