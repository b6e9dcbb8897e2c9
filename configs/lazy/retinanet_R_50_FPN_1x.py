# Detectron2's COCO-Detection/retinanet_R_50_FPN_1x.py with FocalRetinaNet, a LazyConfig.
# The model is that of the yaml config of the same name. Replace any part by another of its role.
# command:  python train_net.py --config-file configs/lazy/retinanet_R_50_FPN_1x.py --num-gpus 8
# override: ... train.max_iter=1000 dataloader.train.total_batch_size=8 model.num_classes=20
# time:     not measured here
# expected: box AP 37.4 on COCO val2017, Detectron2's published number; not measured here
from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec

from retina_plugin import FocalRetinaNet, NMSPostProcessor
from retina_plugin.modeling.anchors.octave_anchor_generator import OctaveAnchorGenerator
from retina_plugin.modeling.assigners.max_iou_assigner import MaxIoUAssigner
from retina_plugin.modeling.coders.delta_coder import DeltaCoder
from retina_plugin.modeling.heads.focal_retinanet_head import FocalRetinaNetHead
from retina_plugin.modeling.losses.focal_loss import FocalLoss
from retina_plugin.modeling.losses.smooth_l1_loss import SmoothL1Loss
from retina_plugin.modeling.normalizers.ema_normalizer import EMANormalizer

from ._detectron2_1x import (
    backbone,
    dataloader,
    lr_multiplier,
    optimizer,
    pixel_mean,
    pixel_std,
    train,
)

train.amp.precision = "auto"  # where train.amp.enabled: float16 on CUDA, bfloat16 on the CPU
train.flush_denormal = True
train.optimize_inference = True
# of TiledDetector, to evaluate large images by tiles of that size; 0 is off
train.test_tiles = {"size": 0, "overlap": 128, "batch": 1}
# of AugmentedDetector, for test-time augmentation; no sizes is off
train.test_augmentation = {"min_sizes": [], "max_size": 4000, "flip": True, "vote_thresh": 0.65}

model = L(FocalRetinaNet)(
    backbone=backbone,
    head_in_features=["p3", "p4", "p5", "p6", "p7"],
    num_classes=80,
    head=L(FocalRetinaNetHead)(
        input_shape=[ShapeSpec(channels=256)] * 5,
        num_classes="${..num_classes}",
        num_anchors=9,  # 3 scales x 3 ratios
        conv_dims=[256, 256, 256, 256],
        prior_prob=0.01,
    ),
    anchor_generator=L(OctaveAnchorGenerator)(
        base_sizes=[[32], [64], [128], [256], [512]],  # of P3..P7, in pixels
        scales_per_octave=3,
        aspect_ratios=[0.5, 1.0, 2.0],
        strides=[8, 16, 32, 64, 128],
        offset=0.0,
    ),
    assigner=L(MaxIoUAssigner)(
        iou_thresholds=[0.4, 0.5], iou_labels=[0, -1, 1], allow_low_quality_matches=True
    ),
    box_coder=L(DeltaCoder)(weights=[1.0, 1.0, 1.0, 1.0]),
    cls_loss=L(FocalLoss)(alpha=0.25, gamma=2.0),
    box_loss=L(SmoothL1Loss)(beta=0.0),
    normalizer=L(EMANormalizer)(momentum=0.9, initial=100.0),
    post_processor=L(NMSPostProcessor)(
        coder="${..box_coder}",
        num_classes="${..num_classes}",
        score_thresh=0.05,
        topk=1000,
        nms_thresh=0.5,
        max_detections=100,
    ),
    pixel_mean=pixel_mean,
    pixel_std=pixel_std,
    input_format="BGR",
    vis_period=0,
)
del backbone  # what is left here is the config

__all__ = ["dataloader", "lr_multiplier", "model", "optimizer", "train"]
