"""A detector that is a function of what it sees: the blocks of an image, each of its own value."""

from types import SimpleNamespace

import torch
from detectron2.modeling import detector_postprocess
from detectron2.structures import Boxes, Instances
from torch import nn


class BlockFinder(nn.Module):
    """Finds every value but 0, in whatever part is in view: its class is value % 3.

    Args:
        noise: pixels by which each side may be off, another time the image is seen in another way.
        twins: find everything twice, the second time one pixel larger and less sure.
    """

    def __init__(self, *, noise=0.0, twins=False):
        super().__init__()
        self.noise = noise
        self.twins = twins
        self.post_processor = SimpleNamespace(nms_thresh=0.5, max_detections=1000)
        self.batches = []

    def forward(self, batched_inputs):
        self.batches.append([tuple(x["image"].shape) for x in batched_inputs])
        return [{"instances": self.find(given)} for given in batched_inputs]

    def find(self, given):
        image = given["image"][0]
        boxes, values = [], [int(v) for v in image.unique() if v]
        for value in values:
            rows, columns = (image == value).nonzero(as_tuple=True)
            boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        generator = torch.Generator().manual_seed(int(image.sum()))
        boxes += self.noise * (2 * torch.rand(boxes.shape, generator=generator) - 1)
        scores = 0.5 + torch.tensor(values, dtype=torch.float32) / 1000
        classes = torch.tensor(values, dtype=torch.int64) % 3
        if self.twins:
            boxes = torch.cat([boxes, boxes + torch.tensor([-1.0, -1, 1, 1])])
            scores = torch.cat([scores, scores / 2])
            classes = torch.cat([classes, classes])
        found = Instances(
            tuple(image.shape), pred_boxes=Boxes(boxes), scores=scores, pred_classes=classes
        )
        size = given.get("height", image.shape[0]), given.get("width", image.shape[1])
        return detector_postprocess(found, *size)
