"""Find the boxes of an image that make a loss non-finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from retina_plugin.engine.non_finite.finding import Box, Image
from retina_plugin.modeling.batch_inputs import ground_truth_of
from retina_plugin.modeling.detector import FocalRetinaNet

TRIED = 64  # boxes per image, one loss computation each


def odd_boxes(given: dict[str, Any], class_names: Sequence[str]) -> list[Box]:
    """Return the invalid or unusual boxes of an input, non-finite boxes first."""
    instances = given.get("instances")
    if instances is None or not instances.has("gt_boxes"):
        return []
    found = [_box(instances, row, class_names) for row in range(len(instances))]
    height, width = instances.image_size
    for box in found:
        box.what = _oddity(box.box, height, width)
    order = [_NOT_FINITE, _EMPTY, _LARGE, _OUTSIDE]
    return sorted((box for box in found if box.what), key=lambda box: order.index(box.what))


_NOT_FINITE, _EMPTY = "not finite", "no width or no height"
_LARGE, _OUTSIDE = "larger than its image", "outside its image"


def _oddity(box: Sequence[float], height: int, width: int) -> str:
    x0, y0, x1, y1 = box
    if not all(map(math.isfinite, box)):
        return _NOT_FINITE
    if x1 <= x0 or y1 <= y0:
        return _EMPTY
    if x1 - x0 > width + 1 or y1 - y0 > height + 1:
        return _LARGE
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        return _OUTSIDE
    return ""


def _box(instances: Instances, row: int, class_names: Sequence[str]) -> Box:
    label = int(instances.gt_classes[row])
    name = class_names[label] if 0 <= label < len(class_names) else ""
    return Box(box=instances.gt_boxes.tensor[row].tolist(), label=label, class_name=name)


def is_bad(losses: dict[str, Tensor]) -> list[str]:
    """Return the names of the non-finite losses."""
    return [name for name, loss in losses.items() if not bool(loss.detach().isfinite().all())]


def blame_boxes(
    model: nn.Module,
    alone: Sequence[dict[str, Any]],
    image: Image,
    *,
    class_names: Sequence[str],
    autocast: Callable[[], Any],
) -> None:
    """Find the boxes of ``image`` that make a loss non-finite although the predictions are finite.

    The network runs once, then the losses are computed for each box alone. Results are stored in
    ``image``. Detectors other than the plugin's are skipped.

    Args:
        model: the model without a DDP wrapper.
        alone: a batch with only the image's input, or copies of it.
        image: the description of the image, updated in place.
        class_names: class names of the data set, if known.
        autocast: function that returns the autocast context of the forward pass.
    """
    instances = alone[0]["instances"]
    if not isinstance(model, FocalRetinaNet) or not instances.has("gt_boxes"):
        return
    with torch.no_grad(), autocast(), _counting_nothing(model):
        images = model.preprocess_image(list(alone))
        truth = ground_truth_of(alone[0], model.num_classes, model.device)
        predictions = model.predict(images, [truth] * len(alone))
        if not all(bool(x.isfinite().all()) for x in (*predictions.logits, *predictions.deltas)):
            return

        def losses(rows: list[int]) -> tuple[list[str], list[str]]:
            some = truth[torch.tensor(rows, dtype=torch.int64)]
            targets = model.assign(predictions, [some] * len(alone))
            bad = is_bad(model.losses_of(predictions, targets, _divide_by_one))
            counts = zip(model.head_in_features, targets.positives.level_counts, strict=True)
            return bad, [name for name, count in counts if count]

        image.background = bool(losses([])[0])
        if image.background:
            return
        odd = {tuple(box.box): box.what for box in image.boxes}
        blamed = []
        for row in range(min(len(truth), TRIED)):
            bad, levels = losses([row])
            if bad:
                box = _box(instances, row, class_names)
                box.what, box.losses, box.levels = odd.get(tuple(box.box), ""), bad, levels
                blamed.append(box)
    corners = [box.box for box in blamed]
    image.boxes = [*blamed, *(box for box in image.boxes if box.box not in corners)]


def _divide_by_one(count: Tensor) -> Tensor:
    return torch.ones((), device=count.device)


@contextmanager
def _counting_nothing(model: FocalRetinaNet) -> Any:
    """Disable counting in losses: it synchronizes all workers, but not all take part here."""
    loss = model.cls_loss
    was_training = isinstance(loss, nn.Module) and loss.training
    if was_training:
        loss.eval()
    try:
        yield
    finally:
        if was_training:
            loss.train()
