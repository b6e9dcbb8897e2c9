"""A front-end as a user writes one, in a file of its own: a frame around every image.

It moves boxes, changes sizes to no multiple of anything, looks at the ground truth, and learns the
frame's grey by a loss of its own.
"""

from dataclasses import dataclass

import torch
from detectron2.structures import Boxes, ImageList, Instances
from torch import nn

from retina_plugin import NetworkInput
from retina_plugin.modeling.contracts import ignored_boxes, with_ignored
from retina_plugin.registry import FRONT_ENDS


@dataclass(frozen=True, eq=False, kw_only=True)
class Framed(NetworkInput):
    width: int

    def _moved(self, boxes, by):
        return Boxes(boxes.tensor + by)

    def ground_truth(self, instances):
        moved = []
        for given, size in zip(instances, self.images.image_sizes, strict=True):
            fields = {**given.get_fields(), "gt_boxes": self._moved(given.gt_boxes, self.width)}
            ignored = ignored_boxes(given)
            moved.append(Instances(size, **fields))
            if ignored is not None:
                with_ignored(moved[-1], ignored + self.width)
        return moved

    def restore(self, detections):
        restored = []
        for found in detections:
            size = tuple(side - 2 * self.width for side in found.image_size)
            fields = found.get_fields()
            moved = self._moved(fields["pred_boxes"], -self.width)
            restored.append(Instances(size, **{**fields, "pred_boxes": moved}))
        return restored

    def extra_losses(self, predictions, targets, positives, box_losses):
        assert box_losses.shape == (len(positives.gt_boxes),)
        return {"loss_frame": (self.side["grey"] - 1).square() * box_losses.detach().sum()}


@FRONT_ENDS.register(defaults={"WIDTH": 5})
class FrameFrontEnd(nn.Module):
    """See the module."""

    def __init__(self, *, width: int = 5, out_channels: int) -> None:
        super().__init__()
        self.width, self.out_channels = width, out_channels
        self.grey = nn.Parameter(torch.zeros(()))
        self.boxes_seen: list[int | None] = []

    @classmethod
    def from_config(cls, cfg, in_channels):
        return {"out_channels": in_channels}

    def forward(self, images, instances=None):
        self.boxes_seen.append(None if instances is None else sum(map(len, instances)))
        framed = []
        for i in range(len(images)):
            channels, height, width = images[i].shape
            canvas = self.grey.expand(channels, height + 2 * self.width, width + 2 * self.width)
            canvas = canvas.clone()
            canvas[:, self.width : self.width + height, self.width : self.width + width] = images[i]
            framed.append(canvas)
        batch = ImageList.from_tensors(framed)
        return Framed(batch, {"grey": self.grey}, width=self.width)
