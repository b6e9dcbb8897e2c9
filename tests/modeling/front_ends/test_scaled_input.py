"""Boxes of images that are seen in another size: there, back, and with all that belongs to them."""

import torch
from detectron2.structures import Boxes, ImageList, Instances
from support.batches import make_instances

from retina_plugin.modeling.contracts import ignored_boxes, with_ignored
from retina_plugin.modeling.front_ends.scaled_input import ScaledInput

BEFORE, AFTER = [(60, 80), (50, 50)], [(90, 160), (25, 33)]


def scaled():
    images = ImageList(torch.zeros(2, 3, 90, 160), AFTER)
    return ScaledInput(images, input_sizes=BEFORE)


def test_boxes_are_multiplied_by_the_quotients_of_the_sizes():
    truth = [make_instances(4, *size) for size in BEFORE]
    kept = [x.gt_boxes.tensor.clone() for x in truth]
    seen = scaled().ground_truth(truth)
    for x, boxes, factors in zip(seen, kept, ((2.0, 1.5), (33 / 50, 0.5)), strict=True):
        torch.testing.assert_close(x.gt_boxes.tensor, boxes * torch.tensor(factors * 2))
    assert [x.image_size for x in seen] == AFTER
    assert all(torch.equal(x.gt_boxes.tensor, boxes) for x, boxes in zip(truth, kept, strict=True))


def test_detections_come_back():
    truth = [make_instances(7, *size) for size in BEFORE]
    given = scaled()
    seen = given.ground_truth(truth)
    found = [
        Instances(x.image_size, pred_boxes=x.gt_boxes, scores=torch.rand(7), mine=list(range(7)))
        for x in seen
    ]
    restored = given.restore(found)
    for back, x, there in zip(restored, truth, found, strict=True):
        torch.testing.assert_close(back.pred_boxes.tensor, x.gt_boxes.tensor, rtol=3e-7, atol=0)
        assert back.image_size == x.image_size
        assert back.scores is there.scores and back.mine == there.mine


def test_ignored_boxes_and_fields_come_along():
    boxes = torch.tensor([[2.0, 4, 10, 20]])
    fields = {"gt_boxes": Boxes(boxes), "gt_classes": torch.tensor([1]), "gt_weight": boxes[:, 0]}
    truth = [
        with_ignored(Instances(BEFORE[0], **fields), boxes * 2),
        Instances(BEFORE[1], **fields),
    ]
    first, second = scaled().ground_truth(truth)
    assert torch.equal(ignored_boxes(first), boxes * 2 * torch.tensor([2.0, 1.5, 2.0, 1.5]))
    assert ignored_boxes(second) is None
    assert first.gt_weight is fields["gt_weight"] and first.gt_classes.tolist() == [1]


def test_no_boxes():
    truth = [make_instances(0, *size) for size in BEFORE]
    given = scaled()
    assert [len(x) for x in given.ground_truth(truth)] == [0, 0]
    none = [Instances(size, pred_boxes=Boxes(torch.zeros(0, 4))) for size in AFTER]
    assert [x.image_size for x in given.restore(none)] == BEFORE
