"""Corners: what the maps shall say, what finds it again, and that it corrects boxes."""

import math

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, Instances
from support.dense_cases import make_targets

from retina_plugin.modeling.contracts import Predictions, with_ignored
from retina_plugin.modeling.heads.corner_head import KEY, CornerHead

C, H, W, STRIDE = 16, 12, 16, 8


def make_head(**arguments):
    settings = {
        "input_shape": [ShapeSpec(channels=C, stride=STRIDE), ShapeSpec(channels=C, stride=16)],
        "num_classes": 3,
        "conv_dims": [C],
        "num_anchors": 1,
    }
    return CornerHead(**{**settings, **arguments})


def plain_bells(boxes):
    maps = torch.zeros(2, H, W)
    for box in boxes.tolist():
        for corner in range(2):
            x, y = (v / STRIDE - 0.5 for v in box[2 * corner : 2 * corner + 2])
            for row in range(H):
                for column in range(W):
                    near = max(abs(row - round(y)), abs(column - round(x))) <= 3
                    value = math.exp(-((row - y) ** 2 + (column - x) ** 2) / 2) * near
                    maps[corner, row, column] = max(maps[corner, row, column], value)
    return maps


def some_boxes(count=4):
    corner = torch.rand(count, 2) * 50 - 3  # the first ones may stick out of the map
    return torch.cat([corner, corner + 20 + torch.rand(count, 2) * 60], dim=1)


def logits_of(maps):
    return torch.logit(maps.clamp(1e-6, 1 - 1e-6))


def predictions_of(maps):
    return Predictions([], [], [], {"corners": [logits_of(maps)]})


def detections_of(boxes, score=0.5):
    scores = torch.full((len(boxes),), score)
    classes = torch.arange(len(boxes))
    return Instances((H * 8, W * 8), pred_boxes=Boxes(boxes), scores=scores, pred_classes=classes)


def test_bells():
    boxes = some_boxes()
    torch.testing.assert_close(make_head()._bells(boxes, (H, W)), plain_bells(boxes))


@pytest.mark.parametrize("counts", [(3, 3), (0, 2), (0, 0)])
def test_loss(counts):
    targets = make_targets(torch.full((2, 5), 3), (4, 1), 3)
    for instances, count in zip(targets.instances, counts, strict=True):
        instances._fields.clear()
        instances.gt_boxes = Boxes(some_boxes(count))
    logits = (torch.randn(2, 2, H, W) - 2).requires_grad_()
    predictions = Predictions([], [], [], {"corners": [logits]})
    (loss,) = make_head(loss_weight=0.5).extra_losses(predictions, targets, None).values()
    expected = 0.0
    for image, instances in enumerate(targets.instances):
        y, p = plain_bells(instances.gt_boxes.tensor), logits[image].sigmoid()
        entropy = -(y * p.log() + (1 - y) * (1 - p).log())
        expected += 0.5 * ((y - p) ** 2 * entropy).sum()
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.isfinite().all() and (gradient != 0).any()


def test_regions_that_are_ignored():
    """There no background is learnt, but corners are."""
    region = torch.tensor([[8.0, 0.0, 128.0, 47.9], [-9.0, -9.0, 2.0, 2.0]])
    box = torch.tensor([[60.0, 20.0, 100.0, 80.0]])  # its top left corner lies in the region
    targets = make_targets(torch.full((1, 5), 3), (4, 1), 3)
    fields = {"gt_boxes": Boxes(box), "gt_classes": torch.zeros(1, dtype=torch.int64)}
    targets.instances[0] = with_ignored(Instances((H * 8, W * 8), **fields), region)
    logits = torch.zeros(1, 2, H, W, requires_grad=True)
    predictions = Predictions([], [], [], {"corners": [logits]})
    loss = make_head().extra_losses(predictions, targets, None)["loss_corner"]
    (gradient,) = torch.autograd.grad(loss, logits)
    learnt = torch.ones(2, H, W, dtype=torch.bool)
    learnt[:, :6, 1:] = False
    assert torch.equal(gradient[0] != 0, learnt | (plain_bells(box) > 0))


def test_right_maps_move_boxes_to_the_right_place():
    """With the maps that the loss asks for, and boxes without a score of their own."""
    truth = torch.tensor([[13.0, 10.5, 71.3, 60.1], [49.7, 33.3, 110.2, 82.9]])
    shift = torch.tensor([[6.0, -5.0, -7.0, 8.0], [-4.0, 3.0, 9.0, -6.0]])
    maps = plain_bells(truth)[None]
    (found,) = make_head().refine([detections_of(truth + shift, 0.0)], predictions_of(maps))
    torch.testing.assert_close(found.pred_boxes.tensor, truth, atol=0.02, rtol=0)
    assert found.pred_classes.tolist() == [0, 1] and found.scores.tolist() == [0, 0]


def test_the_mean_is_weighted_by_the_scores():
    truth = torch.tensor([[20.0, 20.0, 60.0, 60.0]])  # 20 and 60 are the middles of cells
    maps = plain_bells(truth)[None] * 0.6
    start = truth + 4
    (found,) = make_head().refine([detections_of(start, 0.2)], predictions_of(maps))
    expected = start + (truth - start) * 0.6 / 0.8
    torch.testing.assert_close(found.pred_boxes.tensor, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "height", "distance", "moves"),
    [
        ({}, 0.6, 8.0, True),
        ({"min_score": 0.7}, 0.6, 8.0, False),
        ({"search_cells": 2}, 0.6, 31.0, False),  # the bell is there, but not its top
        ({"search_cells": 0}, 0.6, 3.0, True),
        ({}, 0.6, 9.9, True),
        ({}, 0.6, 10.1, False),  # a quarter of the side is 10
    ],
)
def test_only_good_corners_nearby_move_a_box(arguments, height, distance, moves):
    truth = torch.tensor([[36.0, 36.0, 76.0, 76.0]])
    maps = plain_bells(truth)[None] * height
    maps[maps < 0.5] = 0
    start = truth - distance
    (found,) = make_head(**arguments).refine([detections_of(start)], predictions_of(maps))
    assert torch.equal(found.pred_boxes.tensor, start) is not moves


def test_a_box_keeps_its_area():
    """Corners that would cross leave the box as it was."""
    maps = torch.zeros(1, 2, H, W)
    maps[0, 0, 6, 6] = maps[0, 1, 4, 4] = 0.9
    start = torch.tensor([[36.0, 36.0, 53.0, 53.0]])
    (found,) = make_head().refine([detections_of(start, 0.1)], predictions_of(maps))
    assert torch.equal(found.pred_boxes.tensor, start)


def test_boxes_at_and_beyond_the_border():
    boxes = torch.tensor([[-90.0, -3.0, 200.0, 99.0], [0.0, 0.0, 128.0, 96.0]])
    maps = torch.rand(2, 2, H, W)
    nothing = detections_of(torch.zeros(0, 4))
    found, empty = make_head().refine([detections_of(boxes), nothing], predictions_of(maps))
    assert found.pred_boxes.tensor.isfinite().all()
    assert empty.pred_boxes.tensor.shape == (0, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss_weight": -1}, f"{KEY}.LOSS_WEIGHT must be 0 or more, got -1"),
        ({"search_cells": 1.5}, f"{KEY}.SEARCH_CELLS counts cells, 0 or more, got 1.5"),
        ({"min_score": 0}, rf"{KEY}.MIN_SCORE must be in \(0, 1\], got 0"),
        ({"input_shape": [ShapeSpec(channels=C)] * 2}, "stride, as in ShapeSpec"),
    ],
)
def test_wrong_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_head(**arguments)
