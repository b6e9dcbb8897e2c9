"""Detectron2's dataset mapper with the config's augmentations and decoder, and less work a box."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.data.detection_utils import (
    annotations_to_instances,
    check_image_size,
    filter_empty_instances,
    read_image,
    transform_instance_annotations,
)
from detectron2.structures import Boxes, BoxMode, Instances
from fvcore.transforms.transform import Transform

from retina_plugin.data.augmentations import build_augmentations
from retina_plugin.data.decoders import Decoder, build_decoder
from retina_plugin.data.image_cache import LatestImages
from retina_plugin.data.object_fields import object_fields
from retina_plugin.data.tile_records import TILE

XYXY = BoxMode.XYXY_ABS


class RetinaDatasetMapper(DatasetMapper):
    """``DatasetMapper`` with ``INPUT.AUGMENTATIONS`` (``_TEST``) and ``INPUT.DECODER``.

    With the defaults the results are bit-equal to Detectron2's. The boxes of an image are
    transformed together, and annotations are not copied first, since they are only read. Masks,
    keypoints and boxes that are no four plain numbers take Detectron2's way, as do whole records
    with a segmentation map or proposals, whose images PIL decodes. Images of doubles become
    float32. Of a record of ``tile_records`` the tile is cut out of the image, and ``height`` and
    ``width`` become its size.

    Args:
        is_train: see ``DatasetMapper``.
        decoder: what reads the image files.
        ignore_crowd: keep crowd boxes as ``ignored_boxes``, see ``INPUT.IGNORE_CROWD``.
        object_keys: of annotations, what else becomes fields in training, see ``object_fields``;
            test sets are not asked to have it.
        keep_ground_truth: add ``instances`` in evaluation as well, as in training.
        cached_images: how many of the images that tiles are cut from stay decoded.
        kwargs: the further arguments of ``DatasetMapper``.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        decoder: Decoder = read_image,
        ignore_crowd: bool = False,
        object_keys: Sequence[str] = (),
        keep_ground_truth: bool = False,
        cached_images: int = 4,
        **kwargs: Any,
    ) -> None:
        super().__init__(is_train, **kwargs)
        self.decoder = decoder
        self.decoder_of_tiles = LatestImages(decoder, count=cached_images)
        self.keep_ground_truth = is_train or keep_ground_truth
        self.ignore_crowd = ignore_crowd
        self.object_keys = tuple(object_keys) if is_train else ()

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """As ``DatasetMapper``'s, with the augmentations replaced, and the decoder.

        Raises:
            UnknownNameError, ValueError: see ``build_augmentations``, ``build_decoder`` and
                ``LatestImages``.
            ImportError: the decoder's package is not installed.
        """
        arguments = super().from_config(cfg, is_train)
        arguments["augmentations"] = build_augmentations(cfg, is_train)
        return arguments | cls.own_arguments(cfg)

    @staticmethod
    def own_arguments(cfg: CfgNode) -> dict[str, Any]:
        """What ``cfg`` says of the arguments that ``DatasetMapper`` does not have.

        Raises:
            UnknownNameError, ValueError, ImportError: see :meth:`from_config`.
        """
        tiles = cfg.INPUT.get("TILES") or {}
        coco = cfg.DATASETS.get("COCO") or {}
        return {
            "decoder": build_decoder(cfg),
            "ignore_crowd": cfg.INPUT.get("IGNORE_CROWD", False),
            "object_keys": coco.get("EXTRA_ANNOTATION_KEYS") or (),
            **({"cached_images": tiles["CACHE"]} if "CACHE" in tiles else {}),
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """A record in Detectron2's format -> the input of a detector; see ``DatasetMapper``."""
        if self.proposal_topk is not None or "sem_seg_file_name" in dataset_dict:
            return super().__call__(dataset_dict)
        # A subclass may change the annotations that it gets, as Detectron2 invites it to.
        hook = type(self)._transform_annotations
        reads_only = hook is RetinaDatasetMapper._transform_annotations
        record = {
            key: value if reads_only and key == "annotations" else copy.deepcopy(value)
            for key, value in dataset_dict.items()
        }
        decoder = self.decoder_of_tiles if TILE in record else self.decoder
        image = decoder(record["file_name"], self.image_format)
        check_image_size(record, image)
        if TILE in record:
            image = _cut(image, record)
        record["image"], transforms = self.augment(image)
        if not self.keep_ground_truth:
            record.pop("annotations", None)
        elif "annotations" in record:
            self._transform_annotations(record, transforms, tuple(record["image"].shape[1:]))
        return record

    def augment(self, image: np.ndarray) -> tuple[torch.Tensor, Transform]:
        """``(H, W, C)`` as the decoder gives it -> ``(C, H', W')``, and what was done to it."""
        augmented = T.AugInput(image)
        transforms = self.augmentations(augmented)
        image = augmented.image
        if image.dtype == np.float64:  # some augmentations of float32, such as RandomSaturation
            image = image.astype(np.float32)
        return torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1))), transforms

    def _transform_annotations(
        self, dataset_dict: dict[str, Any], transforms: Transform, image_shape: tuple[int, int]
    ) -> None:
        """Replace ``annotations``, which are not changed, by ``instances``."""
        annotations = dataset_dict["annotations"]
        kept = [x for x in annotations if x.get("iscrowd", 0) == 0]
        if self.ignore_crowd:
            crowd = [x for x in annotations if x.get("iscrowd", 0)]
            dataset_dict["ignored_boxes"] = Boxes(boxes_after(crowd, transforms, image_shape))
        boxes = None
        if not (self.use_instance_mask or self.use_keypoint):
            boxes = transform_boxes(kept, transforms, image_shape)
        if boxes is None:
            instances = self._one_by_one(kept, transforms, image_shape)
        else:
            classes = torch.tensor([int(x["category_id"]) for x in kept], dtype=torch.int64)
            instances = Instances(image_shape, gt_boxes=Boxes(boxes), gt_classes=classes)
        for name, values in object_fields(kept, self.object_keys).items():
            instances.set(name, values)
        dataset_dict["instances"] = filter_empty_instances(instances)
        del dataset_dict["annotations"]

    def _one_by_one(
        self, annotations: Sequence[dict[str, Any]], transforms: Transform, size: tuple[int, int]
    ) -> Instances:
        """Detectron2's way, with masks and keypoints."""
        unread = {"segmentation": self.use_instance_mask, "keypoints": self.use_keypoint}
        unread = {key for key, is_read in unread.items() if not is_read}
        flip = self.keypoint_hflip_indices
        transformed = [
            transform_instance_annotations(
                copy.deepcopy({key: value for key, value in x.items() if key not in unread}),
                transforms,
                size,
                keypoint_hflip_indices=flip,
            )
            for x in annotations
        ]
        instances = annotations_to_instances(transformed, size, self.instance_mask_format)
        if self.recompute_boxes:
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        return instances


def _cut(image: np.ndarray, record: dict[str, Any]) -> np.ndarray:
    """A copy of the record's tile, whose size it then says; the decoder keeps the image."""
    x0, y0, x1, y1 = record[TILE]
    tile = image[y0:y1, x0:x1].copy()
    record["height"], record["width"] = tile.shape[:2]
    return tile


def boxes_after(
    annotations: Sequence[dict[str, Any]], transforms: Transform, image_size: tuple[int, int]
) -> np.ndarray:
    """:func:`transform_boxes` of annotations whose boxes may be any numbers, in any modes."""
    boxes = transform_boxes(annotations, transforms, image_size)
    if boxes is None:  # numpy's numbers, or mixed modes
        plain = [
            {"bbox": [float(v) for v in BoxMode.convert(x["bbox"], x["bbox_mode"], XYXY)]}
            for x in annotations
        ]
        boxes = transform_boxes([{**x, "bbox_mode": XYXY} for x in plain], transforms, image_size)
    return boxes


def transform_boxes(
    annotations: Sequence[dict[str, Any]], transforms: Transform, image_size: tuple[int, int]
) -> np.ndarray | None:
    """The boxes of M annotations after ``transforms``, clipped to the image.

    Bit-equal to ``transform_instance_annotations`` on one after the other, whose arithmetic depends
    on the numbers: a box of whole ones stays in integers, which a resize cuts off, and ``x + w`` of
    others is summed in single precision.

    Args:
        annotations: in Detectron2's format; not changed.
        transforms: what was done to the image.
        image_size: height and width afterwards.

    Returns:
        (M, 4) XYXY in pixels; None unless every ``bbox`` is a list or tuple of four plain numbers,
        all XYXY or all XYWH.
    """
    modes = {annotation["bbox_mode"] for annotation in annotations}
    if len(modes) > 1 or not modes <= {BoxMode.XYXY_ABS, BoxMode.XYWH_ABS}:
        return None
    whole, fractional = [], []
    for row, annotation in enumerate(annotations):
        box = annotation["bbox"]
        kinds = set(map(type, box)) if type(box) in (list, tuple) and len(box) == 4 else {None}
        if not kinds <= {int, float}:
            return None
        (whole if kinds == {int} else fractional).append(row)
    has_sizes = modes == {BoxMode.XYWH_ABS}
    height, width = image_size
    result = np.empty((len(annotations), 4))
    for rows, dtype in ((whole, np.int64), (fractional, np.float32 if has_sizes else np.float64)):
        if not rows:
            continue
        boxes = np.array([annotations[row]["bbox"] for row in rows], dtype)
        if has_sizes:
            boxes[:, 2:] += boxes[:, :2]
        if rows is fractional:
            boxes = boxes.astype(np.float64)
        boxes = transforms.apply_box(boxes).clip(min=0)
        result[rows] = np.minimum(boxes, [width, height, width, height])
    return result
