"""What code written for Detectron2's ``RetinaNet`` finds on the detector: its names and methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn

from retina_plugin.modeling.contracts import DenseTargets, NetworkInput, Predictions
from retina_plugin.modeling.scripting import scriptable
from retina_plugin.modeling.stock_names import StockNames
from retina_plugin.registry import BOX_LOSSES

_BOX_LOSSES = ("smooth_l1", "giou", "diou", "ciou")  # values of box_reg_loss_type


class _Setting:
    """A setting that belongs to one of the detector's components, under Detectron2's name.

    Args:
        part: the detector's attribute that holds the component.
    """

    def __init__(self, part: str) -> None:
        self.part = part

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, detector: StockInterface | None, owner: type | None = None) -> Any:
        return self if detector is None else getattr(*self.find(detector))

    def __set__(self, detector: StockInterface, value: Any) -> None:
        setattr(*self.find(detector), value)

    def find(self, detector: StockInterface) -> tuple[object, str]:
        """Return the component and the name of its attribute.

        Raises:
            AttributeError: if the component has no such setting; names those that it has.
        """
        component = getattr(detector, self.part)
        own = component.stock_attribute(self.name) if isinstance(component, StockNames) else None
        if own is None:
            public = [x for x in vars(component) if not x.startswith("_") and x != "training"]
            have = f"its settings are {', '.join(public)}" if public else "it has no settings"
            raise AttributeError(
                f"'{self.name}' has no effect on {type(component).__name__}, the detector's "
                f"{self.part}: {have} (attributes of model.{self.part})"
            )
        return component, own


class StockInterface(DenseDetector):
    """``DenseDetector`` with the attributes and methods of Detectron2's ``RetinaNet``.

    Reading a name gives the value of the component in use, and setting it takes effect there. What
    a component does not have raises an ``AttributeError``.
    """

    box2box_transform = _Setting("box_coder")
    anchor_matcher = _Setting("assigner")
    focal_loss_alpha = _Setting("cls_loss")
    focal_loss_gamma = _Setting("cls_loss")
    smooth_l1_beta = _Setting("box_loss")
    loss_normalizer = _Setting("normalizer")
    test_score_thresh = _Setting("post_processor")
    test_topk_candidates = _Setting("post_processor")
    test_nms_thresh = _Setting("post_processor")
    max_detections_per_image = _Setting("post_processor")

    def __getattr__(self, name: str) -> Any:
        # Called where the ordinary look-up fails, as a descriptor does whose component lacks it
        setting = vars(StockInterface).get(name)
        if isinstance(setting, _Setting):
            setting.find(self)  # raises the error that says why
        return super().__getattr__(name)

    @property
    def num_classes(self) -> int:
        """K; setting it sets the post-processor's as well."""
        return self._num_classes

    @num_classes.setter
    def num_classes(self, value: int) -> None:
        self._num_classes = value
        post_processor = getattr(self, "post_processor", None)
        if isinstance(post_processor, StockNames):
            own = post_processor.stock_attribute("num_classes")
            if own is not None:
                setattr(post_processor, own, value)

    @property
    def box_reg_loss_type(self) -> str:
        """Detectron2's name of the box loss, or the name of its class.

        Setting it replaces the loss by one with the default settings.
        """
        kind = type(self.box_loss)
        names = [name for name in _BOX_LOSSES if BOX_LOSSES.get(name) is kind]
        return names[0] if names else kind.__name__

    @box_reg_loss_type.setter
    def box_reg_loss_type(self, name: str) -> None:
        kind = BOX_LOSSES.get(name)
        if type(self.box_loss) is not kind:
            self.box_loss = kind()

    def forward_training(
        self,
        images: ImageList,
        features: Sequence[Tensor],
        predictions: Sequence[Sequence[Tensor]],
        gt_instances: Sequence[Instances],
    ) -> dict[str, Tensor]:
        """Return the losses of what the head gave.

        Args:
            images: the batch as the backbone saw it.
            features: ``(N, C, H, W)`` per level.
            predictions: the head's output: logits and deltas per level, and the head's own maps.
            gt_instances: ground truth in the pixels of ``images``.
        """
        instances = [x.to(self.device) for x in gt_instances]
        found = self.as_predictions(NetworkInput(images), features, predictions)
        return self.training_losses(found, instances)

    def forward_inference(
        self,
        images: ImageList,
        features: Sequence[Tensor],
        predictions: Sequence[Sequence[Tensor]],
    ) -> list[Instances]:
        """Return the detections in the pixels of ``images``; arguments of :meth:`forward_training`.

        They are neither clipped nor rescaled.
        """
        return self.detect(self.as_predictions(NetworkInput(images), features, predictions))

    @torch.no_grad()
    def label_anchors(
        self, anchors: Sequence[Boxes], gt_instances: Sequence[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return labels ``(R,)`` and matched boxes ``(R, 4)`` of each image.

        A subclass that overrides it, or a function set on the model, replaces the assigner.

        Args:
            anchors: boxes per level.
            gt_instances: ground truth of each image.

        Raises:
            ValueError: if the assigner judges predictions, which are not given here.
        """
        try:
            targets = self.assigner(anchors, gt_instances, self.num_classes)
        except AssertionError as error:
            raise ValueError(
                f"{error}, which label_anchors is not given: call model.assign(model.predict("
                "images), instances), or set MODEL.RETINANET.ASSIGNER.NAME to MaxIoUAssigner"
            ) from None
        boxes = [
            x.gt_boxes.tensor[matched] if len(x) else torch.zeros_like(targets.anchors)
            for x, matched in zip(gt_instances, targets.matched, strict=True)
        ]
        return list(targets.labels), boxes

    @property
    def labels_anchors_itself(self) -> bool:
        """Whether :meth:`label_anchors` was replaced."""
        own = type(self).label_anchors is not StockInterface.label_anchors
        return own or "label_anchors" in vars(self)

    def targets_of_labels(
        self, predictions: Predictions, instances: Sequence[Instances]
    ) -> DenseTargets:
        """Return the targets of a replaced :meth:`label_anchors`: each anchor has its own box."""
        labels, boxes = self.label_anchors(list(predictions.anchors), list(instances))
        labels, anchors = torch.stack(list(labels)), Boxes.cat(list(predictions.anchors)).tensor
        return DenseTargets(
            labels=labels,
            matched=torch.arange(len(anchors), device=labels.device).expand_as(labels),
            instances=[
                Instances(x.image_size, gt_boxes=Boxes(own), gt_classes=label)
                for x, own, label in zip(instances, boxes, labels, strict=True)
            ],
            anchors=anchors,
            level_sizes=tuple(len(x) for x in predictions.anchors),
            num_classes=self.num_classes,
        )

    def as_predictions(
        self, given: NetworkInput, features: Sequence[Tensor], output: Sequence[Any]
    ) -> Predictions:
        """Name the head's output; see ``FocalRetinaNet.predict``."""
        raise NotImplementedError

    def training_losses(
        self, predictions: Predictions, instances: Sequence[Instances]
    ) -> dict[str, Tensor]:
        """Return the losses of a training step; see ``FocalRetinaNet.forward``."""
        raise NotImplementedError

    def __prepare_scriptable__(self) -> nn.Module:
        """Return what ``torch.jit.script`` compiles in place of the detector."""
        return scriptable(self)
