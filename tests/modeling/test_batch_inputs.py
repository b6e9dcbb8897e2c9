"""What the loader hands over, moved to the model's device."""

import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances

from retina_plugin.modeling.batch_inputs import ground_truth_of, to_device

META = torch.device("meta")  # a device that is not the CPU and is everywhere


def make_input():
    instances = Instances(
        (8, 9),
        gt_boxes=Boxes(torch.rand(2, 4)),
        gt_classes=torch.tensor([0, 4]),
        gt_weight=torch.rand(2),
        gt_masks=BitMasks(torch.zeros(2, 8, 9)),
        names=["a", "b"],
    )
    return {"file_name": "a.png", "instances": instances}


def test_all_fields_move():
    given = make_input()
    moved = ground_truth_of(given, 5, META)
    assert moved.image_size == (8, 9)
    assert moved.gt_boxes.tensor.device == moved.gt_classes.device == META
    assert moved.gt_weight.device == moved.gt_masks.tensor.device == META
    assert moved.names == ["a", "b"]
    assert given["instances"].gt_boxes.tensor.device.type == "cpu"


def test_no_copy_where_nothing_moves():
    given = make_input()
    stays = ground_truth_of(given, 5, torch.device("cpu"))
    assert stays.gt_boxes.tensor is given["instances"].gt_boxes.tensor


def test_the_copy_does_not_block():
    asked = {}

    class Spy(torch.Tensor):
        def to(self, device, non_blocking=False):
            asked.update(device=device, non_blocking=non_blocking)
            return self

    to_device(torch.rand(3).as_subclass(Spy), META)
    assert asked == {"device": META, "non_blocking": True}


@pytest.mark.parametrize(("wrong", "message"), [(4, "from 0 to 4.*4 classes"), (1, "0 to 0")])
def test_a_class_that_the_model_has_not(wrong, message):
    with pytest.raises(ValueError, match=f"image a.png.*{message}"):
        ground_truth_of(make_input(), wrong, torch.device("cpu"))


def test_classes_on_a_device_are_not_asked_for():
    given = make_input()
    given["instances"].gt_classes = given["instances"].gt_classes.to(META)
    assert ground_truth_of(given, 1, META).gt_classes.device == META
