import pytest
import torch

from retina_plugin.workbench.benchmark.cases import LARGEST, SMALLEST, Case


def test_a_batch_as_loaders_give_it():
    batch = Case(images=2, boxes=500, height=480, width=640, classes=3).batch()
    assert len(batch) == 2
    for given in batch:
        assert given["image"].shape == (3, 480, 640) and given["image"].dtype == torch.uint8
        boxes, classes = given["instances"].gt_boxes.tensor, given["instances"].gt_classes
        assert boxes.shape == (500, 4)
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2] <= 640).all() and (boxes[:, 3] <= 480).all()
        assert classes.unique().tolist() == [0, 1, 2]
        sides = given["instances"].gt_boxes.area().sqrt()
        assert sides.min() > 0.9 * SMALLEST and sides.max() < 1.1 * LARGEST
        assert sides.median() < 0.5 * sides.mean() + 0.5 * sides.max()
    assert not torch.equal(batch[0]["image"], batch[1]["image"])


def test_the_same_every_time():
    case = Case(1, 5, 64, 64, 7)
    a, b = case.batch()[0], case.batch()[0]
    assert torch.equal(a["image"], b["image"])
    assert torch.equal(a["instances"].gt_boxes.tensor, b["instances"].gt_boxes.tensor)


def test_spread_of_a_photograph():
    image = Case(1, 0, 512, 512, 1).batch()[0]["image"].float()
    assert 100 < image.mean() < 130
    assert 40 < image.std() < 65


@pytest.mark.parametrize(("boxes", "height", "width"), [(0, 64, 64), (3, 4, 100), (3, 9, 9)])
def test_no_boxes_and_tiny_images(boxes, height, width):
    (given,) = Case(1, boxes, height, width, 1, channels=1).batch()
    assert given["image"].shape == (1, height, width)
    assert len(given["instances"]) == boxes
    assert (given["instances"].gt_boxes.area() > 0).all()
