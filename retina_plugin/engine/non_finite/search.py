"""Find the cause of a non-finite loss or gradient by repeating the step's passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.layers import NaiveSyncBatchNorm
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from retina_plugin.engine.non_finite.boxes import blame_boxes, is_bad, odd_boxes
from retina_plugin.engine.non_finite.finding import LOSS, Finding, Image, Layer
from retina_plugin.engine.non_finite.layers import LayerSearch
from retina_plugin.engine.non_finite.state import StateBefore

Batch = list[dict[str, Any]]


@dataclass(frozen=True)
class Passes:
    """Settings to repeat the forward passes of a step.

    Attributes:
        model: the model without a DDP wrapper.
        before: state of the model before the step.
        autocast: function that returns the autocast context of a forward pass.
        class_names: class names of the data set, if known.
    """

    model: nn.Module
    before: StateBefore
    autocast: Callable[[], AbstractContextManager]
    class_names: Sequence[str] = ()

    @property
    def copies(self) -> int:
        """Copies of an image in a single-image batch; batch norm needs more than one value."""
        norms = (x for x in self.model.modules() if isinstance(x, _BatchNorm))
        return 2 if any(norm.training for norm in norms) else 1

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the losses of a batch in training mode."""
        with self.autocast():
            return self.model(batch)


def search(found: Finding, batches: Sequence[Batch], passes: Passes) -> None:
    """Add parameters, layer, images, boxes and gradients to ``found``.

    All workers must call it together and run the same number of forward passes, since a model
    may synchronize the workers. The passes have no side effects besides ``found``.

    Args:
        found: finding of the step, updated in place.
        batches: micro-batches of the step, as passed to the model.
        passes: see :class:`Passes`.
    """
    given = [x for batch in batches for x in batch]
    found.num_images = len(given)
    images = [_image(index, x, passes.class_names) for index, x in enumerate(given)]
    of_gradient = found.what != LOSS
    with passes.before.passes_without_trace():
        passes.before.rewind()
        tensors = [*passes.model.named_parameters(), *passes.model.named_buffers()]
        found.parameters = [name for name, x in tensors if not bool(x.isfinite().all())]
        found.layer = _search_layers(batches, passes)
        if of_gradient:
            passes.before.rewind()
            for batch in batches:
                found.gradients += _bad_gradients(passes, batch)
        _search_images(images, given, passes, of_gradient=of_gradient)
        if not of_gradient and found.layer is None:
            for image in images:
                if image.alone:
                    _search_boxes(image, given[image.index], passes, found)
    found.images = _to_blame(images)


def _image(index: int, given: dict[str, Any], class_names: Sequence[str]) -> Image:
    pixels = given["image"]
    bad = int((~pixels.isfinite()).sum()) if pixels.is_floating_point() else 0
    return Image(
        index=index,
        file=str(given.get("file_name", "(no file name)")),
        id=str(given.get("image_id", "?")),
        size=(pixels.shape[-2], pixels.shape[-1]),
        bad_pixels=bad,
        pixels=pixels.numel(),
        boxes=odd_boxes(given, class_names),
    )


def _search_layers(batches: Sequence[Batch], passes: Passes) -> Layer | None:
    """Return the first failing layer over all micro-batches, with image indices of the step."""
    passes.before.rewind()
    layer, first_image = None, 0
    for batch in batches:
        with LayerSearch(passes.model, getattr(passes.model, "head_in_features", ())) as watched:
            passes.losses(batch)
        if layer is None and watched.layer is not None:
            layer = watched.layer
            # for windows or tokens, the first dimension is not the image
            layer.images = [first_image + i for i in layer.images if i < len(batch)]
        first_image += len(batch)
    return layer


def _search_images(
    images: Sequence[Image], given: Sequence[dict[str, Any]], passes: Passes, *, of_gradient: bool
) -> None:
    """Test each image in a batch of its own."""
    most = max(comm.all_gather(len(images)))
    for turn in range(most):
        image, x = images[min(turn, len(images) - 1)], given[min(turn, len(images) - 1)]
        alone = [x] * passes.copies
        passes.before.rewind()
        if of_gradient:
            image.alone = ["the gradient"] if _bad_gradients(passes, alone) else []
        else:
            image.alone = is_bad(passes.losses(alone))


def _search_boxes(image: Image, given: dict[str, Any], passes: Passes, found: Finding) -> None:
    if comm.get_world_size() > 1 and any(
        isinstance(module, nn.SyncBatchNorm | NaiveSyncBatchNorm)
        for module in passes.model.modules()
    ):
        note = "norms wait for all workers: the replay looks at single boxes"
        found.notes += [note] if note not in found.notes else []
        return
    passes.before.rewind()
    blame_boxes(
        passes.model,
        [given] * passes.copies,
        image,
        class_names=passes.class_names,
        autocast=passes.autocast,
    )


def _bad_gradients(passes: Passes, batch: Batch) -> list[str]:
    """Return the parameters with non-finite gradients, in backward order."""
    named = [(name, x) for name, x in passes.model.named_parameters() if x.requires_grad]
    order: list[str] = []
    handles = [
        x.register_hook(
            lambda gradient, name=name: (
                None if bool(gradient.isfinite().all()) else order.append(name)
            )
        )
        for name, x in named
    ]
    try:
        total = sum(passes.losses(batch).values())
        torch.autograd.grad(total, [x for _, x in named], allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    return order


def _to_blame(images: Sequence[Image]) -> list[Image]:
    """Return images with bad pixels, else those failing alone, else those with odd boxes."""
    for kind in (
        lambda x: x.bad_pixels,
        lambda x: x.alone and x.boxes,
        lambda x: x.alone,
        lambda x: x.boxes,
    ):
        chosen = [image for image in images if kind(image)]
        if chosen:
            return chosen
    return []
