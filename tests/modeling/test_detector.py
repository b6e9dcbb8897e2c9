"""``FocalRetinaNet``: what it does beyond Detectron2's RetinaNet."""

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from support.batches import make_batch, make_image
from support.tiny_models import tiny_cfg, tiny_focal_cfg, zoo_cfg
from torch import nn

from retina_plugin import add_retina_config
from retina_plugin.modeling.assigners.max_iou_assigner import MaxIoUAssigner
from retina_plugin.registry import BOX_LOSSES


def different_anchors_cfg():
    """Nine anchors on P3, three on P4 and P5, one above."""
    cfg = tiny_focal_cfg()
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "OctaveAnchorGenerator"
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[16], [32], [64], [128], [256]]
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[0.5, 1.0, 2.0]] * 3 + [[1.0]] * 2
    cfg.MODEL.ANCHOR_GENERATOR.OctaveAnchorGenerator.SCALES_PER_OCTAVE = [3, 1, 1, 1, 1]
    return cfg


def gradients(model, batch):
    """Losses, after their gradients went into the parameters."""
    model.train()
    losses = model(batch)
    sum(losses.values()).backward()
    return losses


# --- different numbers of anchors per level


def test_different_anchors_train_and_detect():
    batch = make_batch()
    model = build_model(different_anchors_cfg())
    assert model.anchor_generator.num_anchors == [9, 3, 3, 1, 1]
    losses = gradients(model, batch)
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad is not None for p in model.parameters())

    model.eval()
    model.post_processor.score_thresh = 0.0
    with torch.no_grad():
        found = model(batch)
    assert all(len(x["instances"]) == 100 for x in found)


def test_different_anchors_learn():
    """The loss of one batch goes down when it is trained on."""
    batch = make_batch()
    cfg = different_anchors_cfg()
    cfg.MODEL.RETINANET.NORMALIZER.NAME = "FixedNormalizer"  # so that losses compare over time
    model = build_model(cfg)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    totals = []
    for _ in range(12):
        optimizer.zero_grad()
        losses = gradients(model, batch)
        totals.append(sum(losses.values()).item())
        optimizer.step()
    assert totals[-1] < 0.7 * totals[0]


def test_different_anchors_name_their_outputs_in_checkpoints():
    names = build_model(different_anchors_cfg()).head.state_dict().keys()
    outputs = {name for name in names if "subnet" not in name}
    assert outputs == {
        f"{layer}.{count}.{part}"
        for layer in ("cls_score", "bbox_pred")
        for count in (1, 3, 9)
        for part in ("weight", "bias")
    }


def test_equal_anchors_name_them_as_detectron2():
    cfg = tiny_focal_cfg(extended=False)
    stock = tiny_cfg()
    names = set(build_model(cfg).state_dict())
    assert names == {*build_model(stock).state_dict(), "normalizer.average"}


# --- small images and large anchors


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (31, 33), (8, 200)])
def test_images_smaller_than_the_stride(size):
    """A level is never smaller than a cell, and anchors may be larger than the image."""
    batch = make_batch((1, 0), sizes=(size,)) if min(size) > 4 else make_batch((0, 0), (size,))
    model = build_model(tiny_focal_cfg())
    losses = gradients(model, batch)
    assert all(loss.isfinite() for loss in losses.values())
    model.eval()
    model.post_processor.score_thresh = 0.0
    with torch.no_grad():
        found = [x["instances"] for x in model(batch)]
    for instances in found:
        boxes = instances.pred_boxes.tensor
        assert instances.image_size == size
        assert (boxes >= 0).all()
        assert (boxes[:, [0, 2]] <= size[1]).all()
        assert (boxes[:, [1, 3]] <= size[0]).all()


def test_a_level_too_small_for_its_anchors():
    """512-pixel anchors on a map of one cell: the box still gets its best anchor."""
    cfg = tiny_focal_cfg()
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    model = build_model(cfg)
    batch = make_batch((1,), sizes=((64, 64),))
    with EventStorage() as storage:
        losses = gradients(model, batch)
        assert storage.latest()["num_pos_anchors"][0] >= 1
    assert losses["loss_box_reg"] > 0
    assert all(loss.isfinite() for loss in losses.values())


# --- pictures while training


def pictures_after(model, batch, steps):
    """Names and pictures in the event storage after each step."""
    model.train()
    found = []
    with EventStorage() as storage:
        for _ in range(steps):
            model(batch)
            found.append([(name, picture) for name, picture, _ in storage._vis_data])
            storage.clear_images()
            storage.step()
    return found


def test_vis_period_draws():
    cfg = tiny_focal_cfg()
    cfg.VIS_PERIOD = 2
    batch = make_batch((5, 3))
    found = pictures_after(build_model(cfg), batch, steps=5)
    assert [len(x) for x in found] == [1, 0, 1, 0, 1]
    _, picture = found[0][0]
    _, height, width = batch[0]["image"].shape
    assert picture.shape[0] == 3
    assert picture.shape[1] >= height
    assert picture.shape[2] >= width
    assert len(torch.as_tensor(picture).flatten(1).unique(dim=1)[0]) > 2


def test_vis_period_draws_the_ground_truth():
    """With other boxes it is another picture."""
    cfg = tiny_focal_cfg()
    cfg.VIS_PERIOD = 1
    model = build_model(cfg)
    batch = make_batch((5, 3))
    ((_, before),) = pictures_after(model, batch, 1)[0]
    batch[0]["instances"] = batch[0]["instances"][:1]
    ((_, after),) = pictures_after(model, batch, 1)[0]
    assert before.shape == after.shape
    assert (torch.as_tensor(before) != torch.as_tensor(after)).any()


def test_vis_period_changes_no_loss():
    batch = make_batch()
    cfg = tiny_focal_cfg()
    plain = build_model(cfg)
    cfg.VIS_PERIOD = 1
    drawing = build_model(cfg)
    drawing.load_state_dict(plain.state_dict())
    with EventStorage():
        with_picture = gradients(drawing, batch)
    without = gradients(plain, batch)
    assert {k: v.item() for k, v in with_picture.items()} == {
        k: v.item() for k, v in without.items()
    }


@pytest.mark.parametrize("period", [0, -1])
def test_no_pictures_without_a_period(period):
    cfg = tiny_focal_cfg()
    cfg.VIS_PERIOD = period
    assert pictures_after(build_model(cfg), make_batch(), 2) == [[], []]


def test_no_pictures_outside_of_a_training_loop():
    cfg = tiny_focal_cfg()
    cfg.VIS_PERIOD = 1
    model = build_model(cfg).train()
    assert set(model(make_batch())) == {"loss_cls", "loss_box_reg"}


# --- as a part of somebody's code


@pytest.fixture
def own_loss(monkeypatch):
    """A box loss that somebody registers; the registry forgets it after the test."""
    for part in (BOX_LOSSES, BOX_LOSSES.schema):
        for name, value in vars(part).items():
            if isinstance(value, dict):
                monkeypatch.setattr(part, name, dict(value))

    @BOX_LOSSES.register(defaults={"FACTOR": 2.0})
    class ScaledL1Loss(nn.Module):
        """L1, scaled."""

        def __init__(self, *, factor: float) -> None:
            super().__init__()
            self.factor = factor

        def forward(self, positives):
            return self.factor * (positives.deltas - positives.gt_deltas).abs().sum(dim=1)

    return ScaledL1Loss


def test_a_loss_of_ones_own(own_loss):
    """One class with a setting of its own, and one line of config."""
    batch = make_batch()
    cfg = tiny_focal_cfg(SMOOTH_L1_LOSS_BETA=0.0)
    l1 = build_model(cfg)
    cfg.MODEL.RETINANET.BBOX_REG_LOSS_TYPE = "ScaledL1Loss"
    cfg.MODEL.RETINANET.BOX_LOSS.ScaledL1Loss.FACTOR = 3.0
    scaled = build_model(cfg)
    assert type(scaled.box_loss) is own_loss
    scaled.load_state_dict(l1.state_dict())
    expected, found = gradients(l1, batch), gradients(scaled, batch)
    torch.testing.assert_close(found["loss_box_reg"], 3 * expected["loss_box_reg"])
    torch.testing.assert_close(found["loss_cls"], expected["loss_cls"])


def test_nodes_of_ours_in_a_stock_config():
    """Only what is written differs from the defaults."""
    cfg = tiny_focal_cfg(extended=False)
    cfg.MODEL.RETINANET.NORMALIZER = CfgNode(
        {"NAME": "FixedNormalizer", "FixedNormalizer": CfgNode({"VALUE": 5.0})}
    )
    cfg.MODEL.RETINANET.ASSIGNER = CfgNode(
        {"MaxIoUAssigner": CfgNode({"ALLOW_LOW_QUALITY_MATCHES": False})}
    )
    model = build_model(cfg)
    assert model.normalizer.value == 5
    assert type(model.assigner) is MaxIoUAssigner
    small_box = make_batch((1,), sizes=((160, 160),))
    small_box[0]["instances"].gt_boxes.tensor[:] = torch.tensor([0.0, 0.0, 3.0, 3.0])
    with EventStorage() as storage:
        model.train()(small_box)
        assert storage.latest()["num_pos_anchors"][0] == 0  # no anchor overlaps it enough


def test_losses_without_a_training_loop():
    """Predictions and losses are functions of their own, with no event storage around them."""
    batch = make_batch()
    model = build_model(tiny_focal_cfg()).eval()
    with torch.no_grad():
        images = model.preprocess_image(batch)
        predictions = model.predict(images)
        losses = model.losses(predictions, [x["instances"] for x in batch])
        detections = model.detect(predictions)
    assert set(losses) == {"loss_cls", "loss_box_reg"}
    assert len(detections) == len(batch)


def test_gradients_reach_the_pixels():
    """As an adversarial attack needs them."""
    batch = make_batch()
    model = build_model(tiny_focal_cfg()).train()
    for given in batch:
        given["image"] = given["image"].float().requires_grad_()
    sum(model(batch).values()).backward()
    assert all(given["image"].grad.norm() > 0 for given in batch)


def test_the_batch_is_left_alone():
    batch = make_batch()
    images = [x["image"].clone() for x in batch]
    boxes = [x["instances"].gt_boxes.tensor.clone() for x in batch]
    gradients(build_model(tiny_focal_cfg()), batch)
    assert all(torch.equal(a["image"], b) for a, b in zip(batch, images, strict=True))
    assert all(
        torch.equal(a["instances"].gt_boxes.tensor, b) for a, b in zip(batch, boxes, strict=True)
    )


def test_mobilenet_from_a_config():
    """Our backbone under the zoo's config, in three changed keys."""
    cfg = add_retina_config(zoo_cfg(50))
    cfg.MODEL.META_ARCHITECTURE = "FocalRetinaNet"
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_mobilenet_v2_fpn_backbone"
    cfg.MODEL.FPN.OUT_CHANNELS = 32
    model = build_model(cfg)
    losses = gradients(model, make_batch((3,), sizes=((64, 64),)))
    assert all(loss.isfinite() for loss in losses.values())
    model.eval()
    with torch.no_grad():
        (found,) = model([{"image": make_image(64, 64)}])
    assert found["instances"].image_size == (64, 64)
