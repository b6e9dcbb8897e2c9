"""A detector that knows the answer, to test what comes after the detector."""

import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, Instances


class Oracle(torch.nn.Module):
    """Gives back the ground truth (XYWH) of a registered data set, but for crowd boxes."""

    def __init__(self, name):
        super().__init__()
        self.truth = {record["image_id"]: record for record in DatasetCatalog.get(name)}

    def forward(self, batched_inputs):
        return [{"instances": self.detect(given["image_id"])} for given in batched_inputs]

    def detect(self, image_id):
        record = self.truth[image_id]
        objects = [x for x in record["annotations"] if not x["iscrowd"]]
        boxes = torch.tensor([x["bbox"] for x in objects]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        return Instances(
            (record["height"], record["width"]),
            pred_boxes=Boxes(boxes),
            scores=torch.full((len(objects),), 0.9),
            pred_classes=torch.tensor([x["category_id"] for x in objects]),
        )
