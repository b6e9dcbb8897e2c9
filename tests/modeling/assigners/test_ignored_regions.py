"""Crowds from the json to label -1, and anchors that reach over the edge."""

import copy
import pickle

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data.detection_utils import filter_empty_instances
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image

from retina_plugin import add_retina_config
from retina_plugin.data.mapper import RetinaDatasetMapper
from retina_plugin.modeling.assigners.atss_assigner import ATSSAssigner
from retina_plugin.modeling.assigners.max_iou_assigner import MaxIoUAssigner
from retina_plugin.modeling.assigners.per_image import largest_iof, reach_over
from retina_plugin.modeling.batch_inputs import ground_truth_of
from retina_plugin.modeling.contracts import IGNORE, ignored_boxes, with_ignored

K = 2
CPU = torch.device("cpu")


def grid(stride=8, height=64, width=96, size=16):
    y, x = torch.meshgrid(
        torch.arange(stride / 2, height, stride),
        torch.arange(stride / 2, width, stride),
        indexing="ij",
    )
    middle = torch.stack([x, y, x, y], dim=-1).view(-1, 4)
    return Boxes(middle + torch.tensor([-1.0, -1.0, 1.0, 1.0]) * size / 2)


@pytest.fixture
def record(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(path)
    boxes = [([8, 8, 16, 16], 0), ([48, 0, 48, 64], 1), ([0, 40, 10, 10], 0)]
    annotations = [
        {"bbox": bbox, "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1, "iscrowd": crowd}
        for bbox, crowd in boxes
    ]
    return {
        "file_name": str(path),
        "height": 64,
        "width": 96,
        "image_id": 1,
        "annotations": annotations,
    }


def mapper(ignore, flip="none"):
    cfg = add_retina_config(get_cfg())
    cfg.INPUT.IGNORE_CROWD = ignore
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP = (64,), flip
    if flip != "none":
        cfg.INPUT.AUGMENTATIONS = [{"NAME": "RandomFlip", "prob": 1.0}]
    return RetinaDatasetMapper(cfg, is_train=True)


@pytest.mark.parametrize("assigner", [MaxIoUAssigner, ATSSAssigner])
def test_from_the_json_to_the_label(record, assigner):
    anchors = grid()
    centres = anchors.get_centers()
    labels = {}
    for ignore in (False, True):
        given = mapper(ignore)(record)
        assert len(given["instances"]) == 2
        truth = ground_truth_of(given, K, CPU)
        labels[ignore] = assigner()([anchors], [truth], K).labels[0]
    inside = largest_iof(anchors.tensor, torch.tensor([[48.0, 0.0, 96.0, 64.0]])) >= 0.5
    assert (labels[False] != IGNORE)[inside].all()
    assert (labels[True] == IGNORE)[inside & (labels[False] == K)].all()
    assert torch.equal(labels[True][~inside], labels[False][~inside])
    assert (centres[inside][:, 0] >= 44).all() and inside.sum() > 40


def test_regions_move_with_the_image(record):
    given = mapper(True, flip="horizontal")(record)
    assert given["ignored_boxes"].tensor.tolist() == [[0, 0, 48, 64]]


def test_off_is_detectron2s(record):
    given = mapper(False)(record)
    assert "ignored_boxes" not in given
    assert ignored_boxes(ground_truth_of(given, K, CPU)) is None


def test_an_image_of_nothing_but_crowd(record):
    record["annotations"] = record["annotations"][1:2]
    truth = ground_truth_of(mapper(True)(record), K, CPU)
    assert len(truth) == 0
    labels = MaxIoUAssigner()([grid()], [truth], K).labels[0]
    assert (labels == IGNORE).any() and (labels == K).any()


def test_objects_in_a_crowd_stay_objects():
    anchors = grid()
    box = Boxes(anchors.tensor[10:11])
    truth = Instances((64, 96), gt_boxes=box, gt_classes=torch.tensor([1]))
    truth = with_ignored(truth, torch.tensor([[0.0, 0.0, 96.0, 64.0]]))
    labels = MaxIoUAssigner()([anchors], [truth], K).labels[0]
    assert labels[10] == 1
    assert set(labels.tolist()) == {1, IGNORE}


def test_part_of_the_anchor_by_hand():
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0]])
    regions = torch.tensor([[5.0, 0.0, 8.0, 10.0], [0.0, 0.0, 10.0, 4.0]])
    torch.testing.assert_close(largest_iof(anchors, regions), torch.tensor([0.4, 0.0]))


@pytest.mark.parametrize(("border", "ignored"), [(-1.0, 0), (0.0, 36), (100.0, 0)])
def test_anchors_over_the_edge(border, ignored):
    """16 pixels on a grid of 8: the outermost cells' reach 4 pixels over."""
    anchors = grid()
    over = reach_over(anchors.tensor, (64, 96))
    assert over.max() == 4 and (over == 4).sum() == 36
    truth = Instances((64, 96), gt_boxes=Boxes(torch.zeros(0, 4)), gt_classes=torch.zeros(0).long())
    labels = MaxIoUAssigner(allowed_border=border)([anchors], [truth], K).labels[0]
    assert (labels == IGNORE).sum() == ignored


REGIONS = torch.tensor([[5.0, 0.0, 8.0, 10.0], [0.0, 0.0, 10.0, 4.0]])


def two_objects():
    boxes = Boxes(torch.tensor([[0.0, 0.0, 9.0, 9.0], [1.0, 1.0, 1.0, 8.0]]))
    return with_ignored(
        Instances((64, 96), gt_boxes=boxes, gt_classes=torch.tensor([0, 1])), REGIONS
    )


@pytest.mark.parametrize(
    ("kept", "count"),
    [
        (lambda x: x.to("cpu"), 2),
        (lambda x: x[0], 1),
        (lambda x: x[1:], 1),
        (lambda x: x[torch.tensor([True, False])], 1),
        (lambda x: x[torch.tensor([False, False])], 0),
        (lambda x: x[torch.tensor([1, 0, 0])], 3),
        (filter_empty_instances, 1),
        (copy.copy, 2),
        (copy.deepcopy, 2),
        (lambda x: pickle.loads(pickle.dumps(x)), 2),
        (lambda x: Instances(x.image_size, **x.get_fields()), 2),
        (lambda x: Instances.cat([x]), 2),
        (lambda x: ground_truth_of({"instances": x}, K, CPU), 2),
    ],
)
def test_regions_stay_whatever_is_done_to_the_objects(kept, count):
    found = kept(two_objects())
    assert len(found) == len(found.gt_boxes) == len(found.gt_ignored) == count
    assert torch.equal(ignored_boxes(found), REGIONS)


def test_regions_of_several_parts():
    truth = two_objects()
    found = Instances.cat([truth[:1], truth])
    assert len(found) == len(found.gt_ignored) == 3
    assert torch.equal(ignored_boxes(found), torch.cat([REGIONS, REGIONS]))


def test_regions_move_with_the_instances():
    assert ignored_boxes(two_objects().to("meta")).device.type == "meta"
