"""The detector without a config of names: ``L(FocalRetinaNet)(...)``."""

import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, build_model
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from support.batches import make_batch
from support.model_pairs import Pair, assert_same_detections, assert_same_step, calibrate
from support.tiny_models import CHANNELS, TinyBottomUp, tiny_focal_cfg

from retina_plugin import FocalRetinaNet, NMSPostProcessor
from retina_plugin.modeling.anchors.octave_anchor_generator import OctaveAnchorGenerator
from retina_plugin.modeling.assigners.max_iou_assigner import MaxIoUAssigner
from retina_plugin.modeling.coders.delta_coder import DeltaCoder
from retina_plugin.modeling.front_ends.filter_bank_front_end import FilterBankFrontEnd
from retina_plugin.modeling.heads.focal_retinanet_head import FocalRetinaNetHead
from retina_plugin.modeling.losses.focal_loss import FocalLoss
from retina_plugin.modeling.losses.smooth_l1_loss import SmoothL1Loss
from retina_plugin.modeling.normalizers.ema_normalizer import EMANormalizer


def lazy_detector():
    """The tiny detector of ``tiny_cfg``, with objects instead of names."""
    return L(FocalRetinaNet)(
        backbone=L(FPN)(
            bottom_up=L(TinyBottomUp)(),
            in_features=["res3", "res4", "res5"],
            out_channels=CHANNELS,
            top_block=L(LastLevelP6P7)(in_channels=16, out_channels=CHANNELS, in_feature="res5"),
        ),
        head=L(FocalRetinaNetHead)(
            input_shape=[ShapeSpec(channels=CHANNELS)] * 5,
            num_classes="${..num_classes}",
            num_anchors=9,
            conv_dims=[CHANNELS, CHANNELS],
        ),
        head_in_features=["p3", "p4", "p5", "p6", "p7"],
        anchor_generator=L(OctaveAnchorGenerator)(
            base_sizes=[[16], [32], [64], [128], [256]],
            strides=[8, 16, 32, 64, 128],
            offset=0.0,
        ),
        num_classes=7,
        assigner=L(MaxIoUAssigner)(iou_thresholds=[0.4, 0.5], iou_labels=[0, -1, 1]),
        box_coder=L(DeltaCoder)(weights=[1.0, 1.0, 1.0, 1.0]),
        cls_loss=L(FocalLoss)(alpha=0.25, gamma=2.0),
        box_loss=L(SmoothL1Loss)(beta=0.1),
        normalizer=L(EMANormalizer)(),
        post_processor=L(NMSPostProcessor)(coder="${..box_coder}", num_classes="${..num_classes}"),
        pixel_mean=[103.53, 116.28, 123.675],
        pixel_std=[1.0, 1.0, 1.0],
    )


def test_lazy_config_equals_the_config():
    torch.manual_seed(1)
    by_cfg = build_model(tiny_focal_cfg())
    torch.manual_seed(1)
    lazy = instantiate(lazy_detector())
    assert type(lazy) is FocalRetinaNet
    assert by_cfg.state_dict().keys() == lazy.state_dict().keys()
    batch = make_batch()
    calibrate(by_cfg, batch)
    lazy.load_state_dict(by_cfg.state_dict())
    pair = Pair(stock=by_cfg, ours=lazy)
    assert_same_step(pair, batch)
    assert_same_detections(pair, batch)


def test_lazy_config_takes_overrides():
    cfg = lazy_detector()
    cfg.num_classes = 2
    cfg.normalizer.momentum = 0.5
    cfg.head.num_anchors = [9, 3, 3, 3, 3]
    cfg.anchor_generator.scales_per_octave = [3, 1, 1, 1, 1]
    model = instantiate(cfg)
    assert model.normalizer.momentum == 0.5
    assert model.post_processor.num_classes == model.num_classes == 2
    batch = make_batch(num_classes=2)
    assert all(loss.isfinite() for loss in model.train()(batch).values())


def test_lazy_config_takes_a_front_end():
    cfg = lazy_detector()
    cfg.front_end = L(FilterBankFrontEnd)(in_channels=5, orientations=2, wavelengths=[4.0])
    cfg.backbone.bottom_up.channels = 5 + 4
    cfg.pixel_mean, cfg.pixel_std = [100.0] * 5, [50.0] * 5
    model = instantiate(cfg)
    batch = make_batch()
    for given in batch:
        given["image"] = given["image"][[0, 1, 2, 0, 1]]
    assert all(loss.isfinite() for loss in model.train()(batch).values())
    assert len(model.eval()(batch)) == 2
