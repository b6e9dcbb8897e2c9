"""The nearest anchors have the IoU that the assigner finds among all of them."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_backbone, build_model
from detectron2.structures import Boxes, BoxMode, ImageList, Instances, pairwise_iou
from support.catalogs import catalogs  # noqa: F401
from support.tiny_models import tiny_focal_cfg

from retina_plugin.modeling import checked_backbone
from retina_plugin.modeling.assigners.best_overlaps import best_overlaps
from retina_plugin.registry import ASSIGNERS
from retina_plugin.workbench.anchors import anchor_grid as module
from retina_plugin.workbench.anchors import coverage_of
from retina_plugin.workbench.anchors.anchor_grid import anchor_grid

SIZES = [(96, 96), (130, 201), (75, 321), (40, 33)]


def random_boxes(count, height, width):
    """Of all sizes and shapes, some at the edges, some tiny, one as large as the image."""
    corner = torch.rand(count, 2) * torch.tensor([width, height]) * 0.98
    far = corner + torch.rand(count, 2) ** 3 * torch.tensor([width, height]) + 0.5
    boxes = torch.cat([corner, far.minimum(torch.tensor([width, height]))], dim=1)
    boxes[0] = torch.tensor([0, 0, width, height])
    return boxes


def cfg_with(**keys):
    cfg = tiny_focal_cfg()
    for key, value in keys.items():
        cfg.MODEL.ANCHOR_GENERATOR[key] = value
    return cfg


GENERATORS = {
    "stock": {},
    "offset": {"OFFSET": 0.0},
    "odd": {
        "SIZES": [[7], [20], [33.3], [60], [400]],
        "ASPECT_RATIOS": [[0.3, 1.7]],
        "OFFSET": 0.3,
    },
    "uneven": {"SIZES": [[9, 12], [20], [40], [80], [160]], "ASPECT_RATIOS": [[1.0]]},
}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("keys", GENERATORS.values(), ids=list(GENERATORS))
def test_best_is_that_of_all_anchors(keys, size):
    grid = anchor_grid(cfg_with(**keys))
    boxes = random_boxes(60, *size)
    iou, kind = grid.best(boxes, np.array([size] * len(boxes)))
    levels = grid.anchors(size)
    table = pairwise_iou(Boxes(boxes), Boxes(torch.cat(levels)))
    torch.testing.assert_close(iou, table.amax(dim=1), rtol=0, atol=2e-6)
    of_level = torch.stack([t.amax(1) for t in table.split([len(x) for x in levels], dim=1)], dim=1)
    level = grid.level_of(kind)
    mine = of_level.gather(1, level[:, None])[:, 0]
    torch.testing.assert_close(mine, of_level.amax(dim=1), rtol=0, atol=2e-6)
    # the assigner's own routine agrees which anchors are the best ones
    assert (best_overlaps(boxes, torch.cat(levels)).iou.amax() - iou.max()).abs() < 2e-6


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_grid_is_the_detectors(size):
    cfg = tiny_focal_cfg()
    grid, model = anchor_grid(cfg), build_model(cfg)
    images = ImageList.from_tensors([torch.zeros(3, *size)], model.backbone.size_divisibility)
    features = model.backbone(images.tensor)
    theirs = model.anchor_generator([features[name] for name in model.head_in_features])
    for mine, other in zip(grid.anchors(size), theirs, strict=True):
        assert torch.equal(mine, other.tensor)


def test_the_backbone_takes_no_memory(monkeypatch):
    built = []
    monkeypatch.setattr(
        checked_backbone, "build_backbone", lambda *a: built.append(build_backbone(*a)) or built[-1]
    )
    anchor_grid(tiny_focal_cfg())
    (backbone,) = built
    assert {p.device.type for p in backbone.parameters()} == {"meta"}


def test_rotated_anchors_are_refused():
    cfg = cfg_with(NAME="RotatedAnchorGenerator", ANGLES=[[0]])
    with pytest.raises(ValueError, match="RotatedAnchorGenerator makes rotated anchors"):
        anchor_grid(cfg)


@pytest.fixture
def cfg():
    """Two images of 128 x 128: a box that is an anchor of p3, one of p4, and a line."""
    boxes = [[8, 8, 24, 24], [16, 16, 48, 48], [10, 60, 110, 62]]
    annotations = [
        {"bbox": [float(v) for v in box], "bbox_mode": BoxMode.XYXY_ABS, "category_id": i % 2}
        for i, box in enumerate(boxes)
    ]
    records = [
        {"file_name": f"{i}.png", "image_id": i, "height": 128, "width": 128}
        | {"annotations": annotations}
        for i in range(2)
    ]
    DatasetCatalog.register("three", lambda: records)
    cfg = tiny_focal_cfg()
    cfg.DATASETS.TRAIN = ("three",)
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP = (128,), "none"
    return cfg


def test_rows_say_who_is_missed(cfg):
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[16], [32], [64], [128], [256]]
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[1.0]]
    cover = coverage_of(cfg)
    one = cover.seen.draw == 0
    assert cover.iou[one][:2].tolist() == [1, 1]
    assert cover.level[one][:2].tolist() == [0, 1]
    assert cover.missed[one].tolist() == [False, False, True] * 2
    assert cover.side[one][:2].tolist() == [16, 32] and cover.ratio[2] == pytest.approx(0.02)
    assert (cover.threshold, cover.is_yardstick) == (0.5, False)


def test_other_assigners_have_a_yardstick(cfg):
    cfg.MODEL.RETINANET.IOU_THRESHOLDS = [0.3, 0.6]
    assert coverage_of(cfg).threshold == 0.6
    cfg.MODEL.RETINANET.ASSIGNER.NAME = "ATSSAssigner"
    cover = coverage_of(cfg)
    assert (cover.threshold, cover.is_yardstick, cover.assigner) == (0.5, True, "ATSSAssigner")


def test_a_missed_box_is_one_that_the_assigner_gives_no_anchor(cfg):
    cfg.MODEL.RETINANET.ASSIGNER.MaxIoUAssigner.ALLOW_LOW_QUALITY_MATCHES = False
    cover = coverage_of(cfg)
    one = cover.seen.where((cover.seen.record == 0) & (cover.seen.draw == 0))
    truth = Instances((128, 128), gt_boxes=Boxes(torch.from_numpy(one.boxes)))
    truth.gt_classes = torch.zeros(len(one), dtype=torch.int64)
    targets = ASSIGNERS.build(cfg)([Boxes(x) for x in cover.grid.anchors((128, 128))], [truth], 7)
    found = set(targets.matched[0][targets.positives.anchor].tolist())
    assert found == set(np.flatnonzero(~cover.missed[: len(one)]).tolist()) and len(found) < len(
        one
    )


def test_what_is_not_counted_is_said(cfg):
    cfg.INPUT.MIX.MOSAIC_PROB = 0.5
    cfg.MODEL.FRONT_END.NAME = "LearnedScaleFrontEnd"
    notes = coverage_of(cfg).notes
    assert "MOSAIC_PROB" in notes[0] and "LearnedScaleFrontEnd" in notes[1]


def test_no_box_is_an_error(cfg):
    DatasetCatalog.register("none", lambda: [])
    cfg.DATASETS.TRAIN = ("none",)
    with pytest.raises(ValueError, match="has no box"):
        coverage_of(cfg)


def test_the_cost_grows_with_the_anchors_of_a_cell_alone(cfg, monkeypatch):
    """Not with the image, which has 60,000 times as many; and memory is bounded."""
    pairs = []
    original = module.broadcast_iou

    def counted(first, second):
        pairs.append(first.shape[0] * second.shape[-2])
        return original(first, second)

    monkeypatch.setattr(module, "broadcast_iou", counted)
    monkeypatch.setattr(module, "_PAIRS", 1 << 14)
    grid = anchor_grid(cfg)
    boxes = random_boxes(2000, 2000, 2000)
    grid.best(boxes, np.full((len(boxes), 2), 2000))
    assert sum(pairs) == len(boxes) * sum(grid.num_anchors) and max(pairs) <= module._PAIRS
