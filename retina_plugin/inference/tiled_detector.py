"""Large images by tiles: any detector on parts of the image, its boxes put together."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from detectron2.modeling import detector_postprocess
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from retina_plugin.data.tiling import covering_spans
from retina_plugin.inference.own_suppression import own_suppression
from retina_plugin.inference.tile_merging import (
    OwnedSpan,
    is_owned,
    owned_spans,
    suppress_across_tiles,
)
from retina_plugin.modeling.data_parallel import inner_model

KEY = "INPUT.TILES"

Tile = tuple[OwnedSpan, OwnedSpan]  # row and column


class TiledDetector(nn.Module):
    """A detector that looks at a large image tile by tile and answers as if it had seen it whole.

    * Tiles are views of the image as it comes from the loader, that is after its resize, for which
      ``INPUT.MIN_SIZE_TEST`` 0 is none: ``size`` is in pixels that the network sees. What grows
      with the image is the image itself, as it came, and its detections; nothing of the network's.
    * They overlap by ``overlap`` or more and begin at multiples of the backbone's stride, so that
      anchors lie where they would in the whole image.
    * A box is reported by the tile that owns its middle, see :func:`is_owned`: an object up to
      ``overlap`` pixels long comes whole and once, a longer one may come in parts. Then the best
      ``max_detections`` are taken, without what overlaps a better box of another tile as the
      detector's own suppression forbids: :func:`suppress_across_tiles`.
    * Images that fit into a tile go to the detector as they are, together: the same result.

    Far from the edges of the tiles the result is that of the whole image but for what the network
    sees beyond them: its padding is there instead. GroupNorm, and all else that pools over the
    image, pools over the tile.

    Example:
        >>> import retina_plugin
        >>> from detectron2.modeling import build_model
        >>> settings = ["MODEL.RETINANET.NUM_CLASSES=2", "MODEL.DEVICE=cpu"]
        >>> model = build_model(retina_plugin.get_config("retinanet_R_50_FPN_1x", settings)).eval()
        >>> tiled = TiledDetector(model, size=128, overlap=32)
        >>> (found,) = tiled([{"image": torch.zeros(3, 192, 256)}])
        >>> found["instances"].image_size
        (192, 256)

    Args:
        detector: finds boxes in Detectron2's format: :class:`FocalRetinaNet`, Detectron2's
            RetinaNet, a copy that ``optimize_for_inference`` made, ... Is not copied; of a
            ``DistributedDataParallel`` the model inside.
        size: the longest side of a tile, in pixels.
        overlap: pixels that two neighbours share, at least; the longest side of the largest
            object.
        batch: tiles that go through the network together.
        nms_thresh, max_detections, class_agnostic: of the detector's suppression. By default those
            of its ``post_processor``, or as Detectron2's RetinaNet has them.

    Raises:
        ValueError: a number is not what it may be; or the detector does not say its own.
    """

    def __init__(
        self,
        detector: nn.Module,
        *,
        size: int,
        overlap: int = 128,
        batch: int = 1,
        nms_thresh: float | None = None,
        max_detections: int | None = None,
        class_agnostic: bool | None = None,
    ) -> None:
        super().__init__()
        check_test_tiles(size=size, overlap=overlap, batch=batch)
        detector = inner_model(detector)
        own = own_suppression(
            detector,
            type(self).__name__,
            nms_thresh=nms_thresh,
            max_detections=max_detections,
            class_agnostic=class_agnostic,
        )
        self.detector = detector
        self.size = size
        self.overlap = overlap
        self.batch = batch
        self.nms_thresh, self.max_detections, self.class_agnostic = own
        self.stride = max(1, getattr(getattr(detector, "backbone", None), "size_divisibility", 1))
        self.train(detector.training)

    @torch.no_grad()  # else every tile's activations would stay
    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Detectron2's batch -> ``{"instances": Instances}`` an image, as the detector gives them.

        Of a tiled image ``pred_boxes`` alone are moved from the tile to the image; other fields
        stay as they are, and other entries of the detector's output are not put together.
        """
        if self.training:
            raise ValueError(
                "TiledDetector finds boxes, but it is in training: call eval() first. To train on "
                f"tiles set {KEY}.TRAIN_SIZE"
            )
        small = [max(x["image"].shape[-2:]) <= self.size for x in batched_inputs]
        whole = [x for x, fits in zip(batched_inputs, small, strict=True) if fits]
        found = iter(self.detector(whole) if whole else ())
        return [
            next(found) if fits else {"instances": self._by_tiles(given)}
            for given, fits in zip(batched_inputs, small, strict=True)
        ]

    def _by_tiles(self, given: dict[str, Any]) -> Instances:
        height, width = given["image"].shape[-2:]
        rows, columns = (
            owned_spans(covering_spans(side, self.size, self.overlap, self.stride))
            for side in (height, width)
        )
        tiles = list(product(rows, columns))
        parts = []
        for start in range(0, len(tiles), self.batch):
            chunk = tiles[start : start + self.batch]
            outputs = self.detector([_cut(given, tile) for tile in chunk])
            for tile, output in zip(chunk, outputs, strict=True):
                parts.append(_of_image(output["instances"], tile, (height, width)))
        found = Instances.cat(parts)
        kept = self._merge(found, [len(part) for part in parts])
        # to the size that is asked for, as the detector itself would
        return detector_postprocess(
            found[kept], given.get("height", height), given.get("width", width)
        )

    def _merge(self, found: Instances, counts: list[int]) -> Tensor:
        classes = found.pred_classes
        number = torch.arange(len(counts), device=classes.device)
        return suppress_across_tiles(
            found.pred_boxes.tensor,
            found.scores,
            torch.zeros_like(classes) if self.class_agnostic else classes,
            number.repeat_interleave(torch.tensor(counts, device=classes.device)),
            iou_thresh=self.nms_thresh,
            max_detections=self.max_detections,
        )


def check_test_tiles(*, size: int, overlap: int, batch: int) -> None:
    """Refuse what tiles cannot be.

    Raises:
        ValueError: see :class:`TiledDetector`.
    """
    if size <= 0:
        raise ValueError(f"{KEY}.TEST_SIZE (size) is a tile's side in pixels, got {size}")
    if not 0 <= overlap < size:
        raise ValueError(
            f"{KEY}.TEST_OVERLAP (overlap) must be 0 or more and less than TEST_SIZE {size}, got "
            f"{overlap}: set it to the longest side of the largest object, or make the tiles larger"
        )
    if batch < 1:
        raise ValueError(f"{KEY}.TEST_BATCH (batch) counts tiles, 1 or more, got {batch}")


def _cut(given: dict[str, Any], tile: Tile) -> dict[str, Any]:
    """The input of a tile, its image a view; without the size that the whole one is scaled to."""
    row, column = tile
    image = given["image"][..., row.start : row.end, column.start : column.end]
    return {**{k: v for k, v in given.items() if k not in ("height", "width")}, "image": image}


def _of_image(found: Instances, tile: Tile, image_size: tuple[int, int]) -> Instances:
    """The detections that are the tile's own, in the image's pixels."""
    row, column = tile
    boxes = found.pred_boxes.tensor
    boxes = boxes + boxes.new_tensor([column.start, row.start] * 2)
    moved = Instances(image_size, **{**found.get_fields(), "pred_boxes": Boxes(boxes)})
    return moved[is_owned(boxes, column, row)]
