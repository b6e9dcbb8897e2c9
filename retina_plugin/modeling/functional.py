"""Losses and predictions as functions of tensors: for attacks, distillation, gradients of pixels.

Nothing stays behind: no event is logged, no moving average moves, no statistic of a norm changes,
the model's mode and weights are as before. The results are those that the model's own ``forward``
would give in its present mode.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.modeling import detector_postprocess
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from retina_plugin.modeling.batch_inputs import ground_truth_of
from retina_plugin.modeling.contracts import Normalizer, Predictions
from retina_plugin.modeling.data_parallel import inner_model
from retina_plugin.modeling.detector import FocalRetinaNet

Images = Tensor | Sequence[Tensor]
Target = Instances | Mapping[str, Tensor]


def loss_from_tensors(
    model: nn.Module,
    images: Images,
    targets: Sequence[Target],
    normalizer: Normalizer | None = None,
) -> dict[str, Tensor]:
    """The losses of a batch, differentiable to weights and pixels.

    Example:
        >>> import retina_plugin
        >>> from detectron2.modeling import build_model
        >>> settings = ["MODEL.RETINANET.NUM_CLASSES=2", "MODEL.DEVICE=cpu"]
        >>> model = build_model(retina_plugin.get_config("retinanet_R_50_FPN_1x", settings))
        >>> images = torch.zeros(1, 3, 64, 64, requires_grad=True)
        >>> box = torch.tensor([[8.0, 8.0, 40.0, 40.0]])
        >>> losses = loss_from_tensors(model, images, [{"boxes": box, "labels": torch.tensor([1])}])
        >>> sorted(losses)
        ['loss_box_reg', 'loss_cls']
        >>> torch.autograd.grad(sum(losses.values()), images)[0].shape
        torch.Size([1, 3, 64, 64])

    Args:
        model: a :class:`FocalRetinaNet`, in any mode. Of a ``DistributedDataParallel`` the model
            within: gradients of weights are not averaged over the workers.
        images: ``(N, C, H, W)``, or ``(C, H, W)`` each, as a data loader gives them: not
            normalised, in the model's channel order, of any floating type.
        targets: one an image: ``Instances`` with ``gt_boxes`` and ``gt_classes``, or torchvision's
            ``{"boxes": (M, 4), "labels": (M,)}``, with ``"ignored_boxes": (I, 4)`` where no
            background shall be learnt; every other entry ``x`` becomes the field ``gt_x``. Labels
            are 0..K-1.
        normalizer: divides the sums instead of the model's own. One that averages over workers
            waits for all of them to come here, as ``EqualizedFocalLoss`` does in training mode.

    Returns:
        The scalars that ``model.train()(batch)`` would give.

    Raises:
        TypeError: the model is no FocalRetinaNet.
        ValueError: not one target an image, or classes that the model has not.
    """
    detector = _detector(model)
    batch = _preprocess(detector, images)
    instances = _ground_truth(detector, targets, batch.image_sizes)
    with _leaving_no_trace(detector):
        predictions = detector.predict(batch, instances)
        assigned = detector.assign(predictions, instances)
        return detector.losses_of(predictions, assigned, normalizer)


def predict_from_tensors(model: nn.Module, images: Images) -> Predictions:
    """Features, logits, deltas and whatever else head and front-end found, differentiable.

    Args as :func:`loss_from_tensors`. ``detect_from_tensors`` gives boxes.
    """
    detector = _detector(model)
    with _leaving_no_trace(detector):
        return detector.predict(_preprocess(detector, images))


def loss_from_predictions(
    model: nn.Module,
    predictions: Predictions,
    targets: Sequence[Target],
    normalizer: Normalizer | None = None,
) -> dict[str, Tensor]:
    """:func:`loss_from_tensors` of predictions that are there already: with losses between
    networks the images need to pass the network only once.

    A front-end that learns from the ground truth has not seen it then.
    """
    detector = _detector(model)
    instances = _ground_truth(detector, targets, predictions.image_sizes)
    with _leaving_no_trace(detector):
        assigned = detector.assign(predictions, instances)
        return detector.losses_of(predictions, assigned, normalizer)


@torch.no_grad()
def detect_from_tensors(model: nn.Module, images: Images) -> list[Instances]:
    """The detections of each image, in its pixels: ``pred_boxes``, ``scores``, ``pred_classes``.

    Args as :func:`loss_from_tensors`; norms and dropout as in the model's mode.
    """
    detector = _detector(model)
    with _leaving_no_trace(detector):
        found = detector.detect(detector.predict(_preprocess(detector, images)))
    return [detector_postprocess(x, *x.image_size) for x in found]  # clipped to the image


def _detector(model: nn.Module) -> FocalRetinaNet:
    model = inner_model(model)
    if not isinstance(model, FocalRetinaNet):
        raise TypeError(f"expected a FocalRetinaNet, got {type(model).__name__}")
    return model


def _preprocess(model: FocalRetinaNet, images: Images) -> ImageList:
    return model.preprocess_image([{"image": image} for image in images])


def _ground_truth(
    model: FocalRetinaNet, targets: Sequence[Target], sizes: Sequence[tuple[int, int]]
) -> list[Instances]:
    if len(targets) != len(sizes):
        raise ValueError(f"{len(sizes)} images, but {len(targets)} targets")
    return [_instances(model, *pair) for pair in zip(targets, sizes, strict=True)]


def _instances(model: FocalRetinaNet, target: Target, size: tuple[int, int]) -> Instances:
    given: dict[str, Any] = {"instances": target}
    if not isinstance(target, Instances):
        fields = dict(target)
        boxes, labels = Boxes(fields.pop("boxes")), fields.pop("labels")
        if "ignored_boxes" in fields:
            given["ignored_boxes"] = Boxes(fields.pop("ignored_boxes"))
        others = {f"gt_{name}": x for name, x in fields.items()}
        given["instances"] = Instances(size, gt_boxes=boxes, gt_classes=labels, **others)
    return ground_truth_of(given, model.num_classes, model.device)


@contextmanager
def _leaving_no_trace(model: nn.Module) -> Iterator[None]:
    """Buffers are copies meanwhile, events go to a storage of their own."""
    originals = [(module, dict(module._buffers)) for module in model.modules()]
    try:
        for module, buffers in originals:
            for name, buffer in buffers.items():
                if buffer is not None:
                    module._buffers[name] = buffer.clone()
        with EventStorage():
            yield
    finally:
        for module, buffers in originals:
            module._buffers.update(buffers)
