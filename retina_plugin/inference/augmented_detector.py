"""Test-time augmentation: any dense detector on several sizes and flips of an image at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.modeling import DatasetMapperTTA, detector_postprocess
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from retina_plugin.inference.equal_shapes import detect_by_shape
from retina_plugin.inference.own_suppression import own_suppression
from retina_plugin.inference.tile_merging import suppress_across_tiles
from retina_plugin.modeling.data_parallel import inner_model
from retina_plugin.modeling.post_processors.box_voting_post_processor import vote

KEY = "TEST.AUG"
NO_VOTES = 1.0  # no IoU is above it


class AugmentedDetector(nn.Module):
    """A detector that sees an image in several sizes, and mirrored, and puts together its finds.

    * The views are those of Detectron2's ``DatasetMapperTTA``, made of the image as it comes from
      the loader. One size at a time goes through the network, so memory is that of the largest.
    * Boxes go back to the image; the best is taken, what overlaps it in another view as the
      detector's own suppression forbids is dropped, and again, up to ``max_detections``, as
      ``GeneralizedRCNNWithTTA`` merges. A box keeps its score.
    * Each box that was dropped has a say in where the one that it overlaps most lies: see ``vote``.
    * One view of the image's own size, or several, give what the detector alone gives.

    Args:
        detector: finds boxes in Detectron2's format: :class:`FocalRetinaNet`, Detectron2's
            RetinaNet, a :class:`TiledDetector` around one, ... Is not copied; of a
            ``DistributedDataParallel`` the model inside.
        min_sizes: lengths of the shorter side, in pixels, one or more.
        max_size: of the longer side, which a view never exceeds.
        flip: look at the mirror image of each as well.
        vote_thresh: IoU above which a dropped box of the same class votes; 1 for no votes.
        batch: views that go through the network together, which are of one size.
        nms_thresh, max_detections, class_agnostic: of the detector's suppression, by default.

    Raises:
        ValueError: a number is not what it may be; or the detector does not say its own.
    """

    def __init__(
        self,
        detector: nn.Module,
        *,
        min_sizes: Sequence[int],
        max_size: int = 4000,
        flip: bool = True,
        vote_thresh: float = 0.65,
        batch: int = 2,
        nms_thresh: float | None = None,
        max_detections: int | None = None,
        class_agnostic: bool | None = None,
    ) -> None:
        super().__init__()
        check_augmentation(
            min_sizes=min_sizes, max_size=max_size, vote_thresh=vote_thresh, batch=batch
        )
        detector = inner_model(detector)
        own = own_suppression(
            detector,
            type(self).__name__,
            nms_thresh=nms_thresh,
            max_detections=max_detections,
            class_agnostic=class_agnostic,
        )
        self.detector = detector
        self.views = [DatasetMapperTTA([size], max_size, flip) for size in min_sizes]
        self.vote_thresh = vote_thresh
        self.batch = batch
        self.nms_thresh, self.max_detections, self.class_agnostic = own
        self.train(detector.training)

    @torch.no_grad()
    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Detectron2's batch -> ``{"instances": Instances}`` an image, as the detector gives them.

        Other entries of the detector's output are not put together.
        """
        if self.training:
            raise ValueError(
                "AugmentedDetector finds boxes, but it is in training: call eval() first"
            )
        inputs = [_with_size(given) for given in batched_inputs]
        parts: list[list[Instances]] = [[] for _ in inputs]
        for views_of in self.views:
            views = [(i, view) for i, given in enumerate(inputs) for view in views_of(given)]
            transforms = [view.pop("transforms") for _, view in views]
            asked = [_in_own_pixels(view) for _, view in views]
            found = detect_by_shape(self.detector, asked, batch=self.batch)
            for (index, _), transform, output in zip(views, transforms, found, strict=True):
                size = inputs[index]["height"], inputs[index]["width"]
                parts[index].append(_of_image(output["instances"], transform, size))
        return [{"instances": self._merge(of_image)} for of_image in parts]

    def _merge(self, views: list[Instances]) -> Instances:
        found = Instances.cat(views)
        boxes, scores = found.pred_boxes.tensor, found.scores
        groups = found.pred_classes
        if self.class_agnostic:
            groups = torch.zeros_like(groups)
        counts = torch.tensor([len(view) for view in views], device=scores.device)
        view = torch.arange(len(views), device=scores.device).repeat_interleave(counts)
        keep = suppress_across_tiles(
            boxes,
            scores,
            groups,
            view,
            iou_thresh=self.nms_thresh,
            max_detections=self.max_detections,
        )
        kept = found[keep]
        if self.vote_thresh < NO_VOTES:
            moved = vote(boxes, scores, groups, keep, vote_thresh=self.vote_thresh, once=True)
            kept.pred_boxes = Boxes(moved)
        return detector_postprocess(kept, *kept.image_size)


def check_augmentation(
    *, min_sizes: Sequence[int], max_size: int, vote_thresh: float, batch: int
) -> None:
    """Refuse what views cannot be.

    Raises:
        ValueError: see :class:`AugmentedDetector`.
    """
    if not min_sizes or not all(isinstance(size, int) and size > 0 for size in min_sizes):
        raise ValueError(
            f"{KEY}.MIN_SIZES (min_sizes) lists lengths of the shorter side in pixels, one or "
            f"more, such as [640, 800]; got {list(min_sizes)}"
        )
    if max_size <= 0:
        raise ValueError(
            f"{KEY}.MAX_SIZE (max_size) is the longest a side may be, in pixels; got {max_size}"
        )
    if not 0 <= vote_thresh <= NO_VOTES:
        raise ValueError(
            f"{KEY}.VOTE_THRESH (vote_thresh) is an IoU from 0 to 1, 1 for no votes; got "
            f"{vote_thresh}"
        )
    if batch < 1:
        raise ValueError(f"{KEY}.BATCH (batch) counts views, 1 or more; got {batch}")


def _with_size(given: dict[str, Any]) -> dict[str, Any]:
    """The input with the size that its detections are scaled to, and the image where PIL can."""
    height, width = given["image"].shape[-2:]
    rest = {key: value for key, value in given.items() if key != "instances"}  # of an evaluation
    return {"height": height, "width": width, **rest, "image": given["image"].cpu()}


def _in_own_pixels(view: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in view.items() if key not in ("height", "width")}


def _of_image(found: Instances, transform: Any, size: tuple[int, int]) -> Instances:
    """The detections of a view, in the image's pixels."""
    boxes: Tensor = found.pred_boxes.tensor
    back = torch.from_numpy(transform.inverse().apply_box(boxes.cpu().numpy()))
    fields = {**found.get_fields(), "pred_boxes": Boxes(back.to(boxes))}
    return Instances(size, **fields)
