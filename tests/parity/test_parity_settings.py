"""Equal losses, gradients and detections for each setting of Detectron2's RetinaNet."""

import pytest
from support.batches import make_batch
from support.model_pairs import assert_same_detections, assert_same_step, build_pair
from support.tiny_models import tiny_cfg


def assert_equal(cfg, batch=None):
    batch = batch or make_batch()
    pair = build_pair(cfg, batch)
    step = assert_same_step(pair, batch)
    assert_same_detections(pair, batch)
    return step


@pytest.mark.parametrize("beta", [0.0, 0.1, 1.0])
def test_smooth_l1(beta):
    step = assert_equal(tiny_cfg(BBOX_REG_LOSS_TYPE="smooth_l1", SMOOTH_L1_LOSS_BETA=beta))
    assert step.losses["loss_box_reg"] > 0


@pytest.mark.parametrize("name", ["giou", "diou", "ciou"])
def test_iou_losses(name):
    step = assert_equal(tiny_cfg(BBOX_REG_LOSS_TYPE=name))
    assert step.losses["loss_box_reg"] > 0


@pytest.mark.parametrize("norm", ["", "GN", "BN", "SyncBN"])
def test_head_norms(norm):
    """SyncBN too: one process on a CPU trains with it (several do not, in stock as in ours)."""
    batch = make_batch()
    pair = build_pair(tiny_cfg(NORM=norm), batch)
    assert_same_step(pair, batch)
    stock, ours = pair.stock.state_dict(), pair.ours.state_dict()
    for name, value in stock.items():  # the running statistics, which the step has moved
        assert (ours[name] - value).float().norm() <= 1e-5 * value.float().norm(), name
    assert_same_detections(pair, batch)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("alpha", [-1, 0.25, 0.5, 0.75])
def test_focal_loss(gamma, alpha):
    assert_equal(tiny_cfg(FOCAL_LOSS_GAMMA=gamma, FOCAL_LOSS_ALPHA=alpha))


@pytest.mark.parametrize("num_classes", [1, 80])
def test_number_of_classes(num_classes):
    batch = make_batch(num_classes=num_classes)
    assert_equal(tiny_cfg(NUM_CLASSES=num_classes), batch)


def test_one_anchor_per_cell():
    cfg = tiny_cfg()
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[16], [32], [64], [128], [256]]
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[1.0]]
    assert_equal(cfg)


def test_regression_weights():
    assert_equal(tiny_cfg(BBOX_REG_WEIGHTS=(10.0, 10.0, 5.0, 5.0)))


def test_pixel_statistics():
    cfg = tiny_cfg()
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [123.7, 100.0, 90.0], [58.4, 30.0, 57.4]
    assert_equal(cfg)


@pytest.mark.parametrize(
    ("thresholds", "labels"),
    [
        ([0.4, 0.5], [0, -1, 1]),
        ([0.5], [0, 1]),
        ([0.3, 0.7], [0, -1, 1]),
        ([0.1, 0.4, 0.5], [-1, 0, -1, 1]),
    ],
)
def test_iou_thresholds(thresholds, labels):
    assert_equal(tiny_cfg(IOU_THRESHOLDS=thresholds, IOU_LABELS=labels))


def test_fewer_levels_and_another_offset():
    cfg = tiny_cfg(IN_FEATURES=["p4", "p5", "p6"])
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128]]
    cfg.MODEL.ANCHOR_GENERATOR.OFFSET = 0.5
    assert_equal(cfg)


@pytest.mark.parametrize("box_loss", ["smooth_l1", "giou", "diou", "ciou"])
@pytest.mark.parametrize("counts", [(0, 5), (5, 0), (0, 0)])
def test_empty_images(counts, box_loss):
    """Without any box all parameters still get gradients: distributed training waits for them."""
    step = assert_equal(tiny_cfg(BBOX_REG_LOSS_TYPE=box_loss), make_batch(counts))
    if not any(counts):
        assert step.losses["loss_box_reg"] == 0
        assert step.gradients["head.bbox_pred.weight"].norm() == 0


def test_hundreds_of_boxes():
    batch = make_batch((300, 500, 0))
    step = assert_equal(tiny_cfg(), batch)
    assert step.positives_per_image > 200


def test_batch_of_mixed_sizes():
    sizes = ((64, 64), (33, 190), (192, 96), (100, 101), (1, 1))
    batch = make_batch((3, 4, 5, 6, 0), sizes=sizes)
    pair = build_pair(tiny_cfg(), batch)
    assert_same_step(pair, batch)
    assert_same_detections(pair, batch[:4])
    assert_same_detections(pair, batch[4:], at_least=0)  # a pixel: boxes are clipped away


def test_one_image():
    assert_equal(tiny_cfg(), make_batch((4,)))
