"""``torch.jit.script`` of the detector, through Detectron2's ``RetinaNet``, which is scriptable."""

# no `from __future__ import annotations`: TorchScript reads the annotation below

from typing import Any

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.meta_arch.retinanet import RetinaNet, RetinaNetHead
from torch import nn

from retina_plugin.modeling.coders.delta_coder import DeltaCoder
from retina_plugin.modeling.heads.focal_retinanet_head import FocalRetinaNetHead
from retina_plugin.modeling.post_processors.nms_post_processor import NMSPostProcessor


class _ScriptableRetinaNet(RetinaNet):
    """Detectron2's, whose training branch TorchScript leaves out."""

    training: torch.jit.Final[bool]


def scriptable(detector: Any) -> nn.Module:
    """Return Detectron2's ``RetinaNet`` of the detector's own layers and settings.

    Equal to the detector, whose parts must be those that Detectron2 has.

    Args:
        detector: a ``FocalRetinaNet`` in evaluation mode.

    Raises:
        NotImplementedError: if a part has no counterpart in Detectron2; names it.
    """
    head, post_processor = detector.head, detector.post_processor
    parts = (
        ("head", head, FocalRetinaNetHead),
        ("box_coder", detector.box_coder, DeltaCoder),
        ("post_processor", post_processor, NMSPostProcessor),
    )
    others = [
        f"its {name} is {type(part).__name__}"
        for name, part, kind in parts
        if type(part) is not kind
    ]
    if detector.front_end is not None:
        others.append(f"it has a front-end, {type(detector.front_end).__name__}")
    if not others and (post_processor.class_agnostic or post_processor.topk_per_level):
        others.append("its NMS is class-agnostic, or has TOPK_PER_LEVEL")
    if not others and (head.level_scales is not None or len(set(head.counts)) > 1):
        others.append("its levels have factors, or different numbers of anchors")
    if others:
        raise NotImplementedError(
            f"torch.jit.script takes the detector where its parts are Detectron2's, but "
            f"{' and '.join(others)}: trace it instead, with detectron2.export.TracingAdapter"
        )
    return _ScriptableRetinaNet(
        backbone=detector.backbone,
        head=_stock_head(head, detector.num_classes),
        head_in_features=detector.head_in_features,
        anchor_generator=detector.anchor_generator,
        box2box_transform=detector.box2box_transform,
        anchor_matcher=None,  # of training alone
        num_classes=detector.num_classes,
        test_score_thresh=float(detector.test_score_thresh),
        test_topk_candidates=detector.test_topk_candidates,
        test_nms_thresh=float(detector.test_nms_thresh),
        max_detections_per_image=detector.max_detections_per_image,
        pixel_mean=detector.pixel_mean.flatten().tolist(),
        pixel_std=detector.pixel_std.flatten().tolist(),
    ).train(detector.training)


def _stock_head(head: FocalRetinaNetHead, num_classes: int) -> RetinaNetHead:
    """Detectron2's head with the same layers."""
    with torch.device("meta"):  # no memory for layers that are replaced at once
        stock = RetinaNetHead(
            input_shape=[ShapeSpec(channels=head.channels)] * len(head.counts),
            num_classes=num_classes,
            num_anchors=head.counts[0],
            conv_dims=[head.channels],
        )
    for name in ("cls_subnet", "bbox_subnet", "cls_score", "bbox_pred"):
        setattr(stock, name, getattr(head, name))
    return stock
