"""``FocalRetinaNet``: images -> front-end -> backbone -> head -> losses, or detections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import (
    Backbone,
    build_anchor_generator,
    detector_postprocess,
)
from detectron2.structures import ImageList, Instances
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import Tensor, nn

from retina_plugin.drawing import TRAINING_PICTURE, picture_is_due, training_picture
from retina_plugin.modeling.abilities import HeadAbilities, warn_of_undeclared
from retina_plugin.modeling.backbones.input_channels import check_input_channels
from retina_plugin.modeling.batch_inputs import (
    check_channels,
    check_pixel_statistics,
    ground_truth_of,
    to_device,
)
from retina_plugin.modeling.checked_backbone import build_checked_backbone
from retina_plugin.modeling.contracts import (
    Assigner,
    BoxCoder,
    BoxLoss,
    ClassificationLoss,
    DenseTargets,
    FrontEnd,
    NetworkInput,
    Normalizer,
    PositiveBoxes,
    PostProcessor,
    Predictions,
    box_dim,
)
from retina_plugin.modeling.front_ends.running import run_front_end
from retina_plugin.modeling.heads.level_check import check_levels
from retina_plugin.modeling.losses.own_losses import add_own_losses
from retina_plugin.modeling.losses.weighting import LossWeighting
from retina_plugin.modeling.pretrained_part import pretrained_part
from retina_plugin.modeling.stock_interface import StockInterface
from retina_plugin.modeling.techniques import Techniques
from retina_plugin.registry import (
    ASSIGNERS,
    BOX_CODERS,
    BOX_LOSSES,
    CLS_LOSSES,
    DETECTORS,
    FRONT_ENDS,
    HEADS,
    NORMALIZERS,
    POST_PROCESSORS,
    check_components,
)


@DETECTORS.register()
class FocalRetinaNet(StockInterface):
    """RetinaNet with every part replaceable; by default equal to Detectron2's.

    With the defaults it gives the losses, gradients and detections of
    ``detectron2.modeling.meta_arch.RetinaNet`` for the same weights, and reads its checkpoints.

    Source: Lin et al., Focal Loss for Dense Object Detection, 2017.

    Args:
        backbone: a Detectron2 backbone.
        head: features -> (logits, deltas) per level.
        head_in_features: names of the backbone's outputs that the head sees, P3 first.
        anchor_generator: features -> ``Boxes`` per level.
        num_classes: K.
        assigner, box_coder, cls_loss, box_loss, normalizer, post_processor: see ``contracts.py``.
        pixel_mean, pixel_std: one number a channel, in the image's units and channel order.
        front_end: what decides what the backbone sees of a batch; None for all of it as it is.
        vis_period: draw a picture of ground truth and predictions every so many steps; 0 never.
        input_format: channel order of the images, for that picture.
        loss_weighting: how much the losses count; by default 1 each.

    Raises:
        ValueError: not as many deviations as means, or the backbone takes another number of
            channels.
        TypeError: the head has a layer of the name of one of its abilities' methods.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        head: nn.Module,
        head_in_features: Sequence[str],
        anchor_generator: nn.Module,
        num_classes: int,
        assigner: Assigner,
        box_coder: BoxCoder,
        cls_loss: ClassificationLoss,
        box_loss: BoxLoss,
        normalizer: Normalizer,
        post_processor: PostProcessor,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        front_end: FrontEnd | None = None,
        vis_period: int = 0,
        input_format: str = "BGR",
        loss_weighting: LossWeighting | None = None,
    ) -> None:
        check_pixel_statistics(pixel_mean, pixel_std)
        channels = len(pixel_mean) if front_end is None else front_end.out_channels
        check_input_channels(pretrained_part(backbone)[1], channels)
        super().__init__(
            backbone, head, list(head_in_features), pixel_mean=pixel_mean, pixel_std=pixel_std
        )
        self._head_abilities = HeadAbilities(head)
        if not isinstance(box_coder, BoxCoder):
            warn_of_undeclared(box_coder, BoxCoder, attributes=("dim",))
        self.front_end = front_end
        self.anchor_generator = anchor_generator
        self.num_classes = num_classes
        self.assigner = assigner
        self.box_coder = box_coder
        self.cls_loss = cls_loss
        self.box_loss = box_loss
        self.normalizer = normalizer
        self.post_processor = post_processor
        self.loss_weighting = loss_weighting or LossWeighting()
        self.vis_period = vis_period
        self.input_format = input_format

    def head_abilities(self) -> HeadAbilities:
        """What the head does besides; resolved when it is set, such as by ``torch.compile``."""
        if self._head_abilities.head is not self.head:
            self._head_abilities = HeadAbilities(self.head)
        return self._head_abilities

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Build the parts; ``cfg`` may or may not have seen ``add_retina_config``."""
        retinanet = cfg.MODEL.RETINANET
        check_components(cfg)
        if retinanet.NUM_CLASSES is None:  # load_config leaves it to the data
            raise ValueError(
                "MODEL.RETINANET.NUM_CLASSES is None: set it, or have it from the data by "
                "retina_plugin.data.coco_registration.register_datasets(cfg)"
            )
        channels = len(cfg.MODEL.PIXEL_MEAN)
        front_end = FRONT_ENDS.build(cfg, in_channels=channels)
        if front_end is not None:
            channels = front_end.out_channels
        backbone = build_checked_backbone(cfg, channels)
        shapes = backbone.output_shape()
        feature_shapes = [shapes[name] for name in retinanet.IN_FEATURES]
        anchor_generator = build_anchor_generator(cfg, feature_shapes)
        box_coder = BOX_CODERS.build(cfg)
        head = HEADS.build(
            cfg,
            input_shape=feature_shapes,
            num_anchors=anchor_generator.num_anchors,
            box_dim=box_dim(box_coder),
        )
        parts = nn.ModuleDict({"backbone": backbone, "head": head, "front_end": front_end})
        parts = Techniques.from_config(cfg).apply(parts)
        return {
            "backbone": parts.backbone,
            "head": parts.head,
            "head_in_features": retinanet.IN_FEATURES,
            "anchor_generator": anchor_generator,
            "num_classes": retinanet.NUM_CLASSES,
            "assigner": ASSIGNERS.build(cfg),
            "box_coder": box_coder,
            "cls_loss": CLS_LOSSES.build(cfg),
            "box_loss": BOX_LOSSES.build(cfg),
            "normalizer": NORMALIZERS.build(cfg),
            "loss_weighting": LossWeighting(**LossWeighting.from_config(cfg)),
            "post_processor": POST_PROCESSORS.build(cfg, coder=box_coder),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "front_end": parts.front_end,
            "vis_period": cfg.VIS_PERIOD,
            "input_format": cfg.INPUT.FORMAT,
        }

    def forward(
        self, batched_inputs: list[dict[str, Any]], normalizer: Normalizer | None = None
    ) -> Any:
        """Detectron2's batch -> a dict of losses in training, else one dict an image.

        Args:
            batched_inputs: each has ``image`` ``(C, H, W)``; in training ``instances`` with
                ``gt_boxes`` and ``gt_classes``; else optionally ``height`` and ``width``, the size
                that the detections are scaled to.
            normalizer: divides the losses instead of the model's own, where the batch is a part of
                a larger one.

        Returns:
            ``{"loss_cls", "loss_box_reg"}``, or ``[{"instances": Instances}, ...]``.
        """
        images = self.preprocess_image(batched_inputs)
        if not self.training:
            return self._rescale(self.detect(self.predict(images)), batched_inputs)
        instances = [ground_truth_of(x, self.num_classes, self.device) for x in batched_inputs]
        predictions = self.predict(images, instances)
        if picture_is_due(self.vis_period):
            self._draw_picture(batched_inputs, predictions)
        return self.training_losses(predictions, instances, normalizer)

    def training_losses(
        self,
        predictions: Predictions,
        instances: Sequence[Instances],
        normalizer: Normalizer | None = None,
    ) -> dict[str, Tensor]:
        """:meth:`losses`, with the number of positives for the event storage where there is one."""
        targets = self.assign(predictions, instances)
        if has_event_storage():
            per_image = len(targets.positives) / len(instances)
            get_event_storage().put_scalar("num_pos_anchors", per_image)
        return self.losses_of(predictions, targets, normalizer)

    def preprocess_image(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """The normalised batch, padded to what the backbone needs."""
        check_channels(batched_inputs, len(self.pixel_mean))
        return super().preprocess_image(batched_inputs)

    def _move_to_current_device(self, x: Tensor) -> Tensor:
        """Of ``preprocess_image``."""
        return to_device(x, self.device)

    def predict(
        self, images: ImageList, instances: Sequence[Instances] | None = None
    ) -> Predictions:
        """Front-end, backbone, head and anchors; ``instances`` are for front-ends that learn."""
        given = run_front_end(
            self.front_end,
            images,
            instances,
            size_divisibility=self.backbone.size_divisibility,
        )
        features = self.backbone(given.images.tensor)
        features = [features[name] for name in self.head_in_features]
        return self.as_predictions(given, features, self.head(features), images.image_sizes)

    def as_predictions(
        self,
        given: NetworkInput,
        features: Sequence[Tensor],
        output: Sequence[Any],
        image_sizes: Sequence[tuple[int, int]] | None = None,
    ) -> Predictions:
        """Return the head's ``output`` with names and anchors, checked.

        Args:
            given: what the backbone saw.
            features: ``(N, C, H, W)`` per level.
            output: logits and deltas per level, and the head's own maps.
            image_sizes: those of the batch before the front-end; by default those of ``given``.
        """
        logits, deltas, *extras = output
        predictions = Predictions(
            logits,
            deltas,
            self.anchor_generator(list(features)),
            *extras,
            coder=self.box_coder,
            features=features,
            image_sizes=given.images.image_sizes if image_sizes is None else image_sizes,
            input=given,
        )
        check_levels(
            predictions,
            names=self.head_in_features,
            num_classes=self.num_classes,
            box_dim=box_dim(self.box_coder),
        )
        return predictions

    def losses(self, predictions: Predictions, instances: Sequence[Instances]) -> dict[str, Tensor]:
        """Losses of the batch, each divided by the normalizer.

        Args:
            predictions: see :class:`~retina_plugin.modeling.contracts.Predictions`.
            instances: ground truth, on the model's device: ``gt_boxes``, ``gt_classes``, in the
                pixels of the batch.
        """
        return self.losses_of(predictions, self.assign(predictions, instances))

    def assign(self, predictions: Predictions, instances: Sequence[Instances]) -> DenseTargets:
        """What every anchor shall become; ``instances`` as in :meth:`losses`."""
        instances = predictions.input.ground_truth(instances)
        if self.labels_anchors_itself:
            return self.targets_of_labels(predictions, instances)
        return self.assigner(predictions.anchors, instances, self.num_classes, predictions)

    def positives_of(self, predictions: Predictions, targets: DenseTargets) -> PositiveBoxes:
        """What box losses see."""
        return PositiveBoxes(
            deltas=targets.positives.gather(predictions.deltas, box_dim(self.box_coder)),
            anchors=targets.anchors[targets.positives.anchor],
            gt_boxes=targets.field("gt_boxes"),
            coder=self.box_coder,
            assigned_scores=targets.positive_scores,
            targets=targets,
        )

    def losses_of(
        self,
        predictions: Predictions,
        targets: DenseTargets,
        normalizer: Normalizer | None = None,
    ) -> dict[str, Tensor]:
        """:meth:`losses` of anchors that are assigned already; ``normalizer`` as in forward."""
        logits, weighting = predictions.logits, self.loss_weighting
        positives = self.positives_of(predictions, targets)
        count = weighting.count(targets, positives)
        boxes = self.box_loss(positives)
        sums = {
            "loss_cls": self.cls_loss(logits, targets, positives) * weighting.cls,
            "loss_box_reg": weighting.box_sum(boxes, count, logits, targets, positives),
        }
        own = self.head_abilities().extra_losses(predictions, targets, positives)
        add_own_losses(sums, own, self.head)
        own = predictions.input.extra_losses(predictions, targets, positives, boxes)
        add_own_losses(sums, own, self.front_end)
        divisor = (self.normalizer if normalizer is None else normalizer)(count)
        return {name: total / divisor for name, total in sums.items()}

    def detect(self, predictions: Predictions) -> list[Instances]:
        """Detections in the pixels of the batch's images."""
        logits = self.head_abilities().fused_logits(predictions)
        given = predictions.input
        found = self.post_processor(
            logits, predictions.deltas, predictions.anchors, given.images.image_sizes
        )
        return given.restore(self.head_abilities().refine(found, predictions))

    def _rescale(
        self, detections: list[Instances], batched_inputs: list[dict[str, Any]]
    ) -> list[dict[str, Instances]]:
        """To the size that each input asks for, clipped to it, empty boxes dropped."""
        outputs = []
        for found, given in zip(detections, batched_inputs, strict=True):
            height = given.get("height", found.image_size[0])
            width = given.get("width", found.image_size[1])
            outputs.append({"instances": detector_postprocess(found, height, width)})
        return outputs

    @torch.no_grad()
    def _draw_picture(self, batched_inputs: list[dict[str, Any]], predictions: Predictions) -> None:
        """Ground truth beside the best predictions, to the event storage (TensorBoard's images)."""
        found = self.detect(predictions)[0]
        picture = training_picture(batched_inputs[0], found, self.input_format)
        get_event_storage().put_image(TRAINING_PICTURE, picture.numpy())
