"""Run folders as a training leaves them, with a few images of two classes."""

import json

from detectron2.config import get_cfg
from PIL import Image

from retina_plugin.config.defaults import add_retina_config
from retina_plugin.data.coco_json import CocoDataset


class MadeRun:
    """A run folder; its parts can be taken away or written anew.

    Three images of 120 x 90: the first two with an object of each class, the last with none.
    """

    def __init__(self, root, *, classes=("cat", "dog"), name="run", data=None):
        self.folder, self.data = root / name, data or root / "data"
        self.images, self.json = self.data / "images", self.data / "val.json"
        if data is None:
            self._write_data(classes)
        self.folder.mkdir(parents=True)
        self.write_config()
        self.write_metrics()
        self.detect([1, 2], score=0.9)

    def _write_data(self, classes):
        self.images.mkdir(parents=True)
        made = CocoDataset(list(classes))
        for number in range(3):
            name = f"{number}.png"
            Image.new("RGB", (120, 90), (40, 90 * number, 60)).save(self.images / name)
            image = made.add_image(name, 120, 90, site="north" if number else "south")
            for index in range(len(classes) if number < 2 else 0):
                made.add_box(image, (10 + 50 * index, 20, 40 + 50 * index, 60), index)
        made.save(self.json)

    @property
    def truth(self):
        return json.loads(self.json.read_text())

    @property
    def detections(self):
        return self.folder / "inference" / "val" / "coco_instances_results.json"

    def write_config(self, *overrides):
        cfg = add_retina_config(get_cfg())
        cfg.MODEL.RETINANET.NUM_CLASSES = None
        test = cfg.DATASETS.COCO.TEST
        test.NAME, test.JSON, test.IMAGES = ["val"], [str(self.json)], [str(self.images)]
        cfg.DATASETS.TEST = ("val",)
        cfg.merge_from_list(list(overrides))
        (self.folder / "config.yaml").write_text(cfg.dump())

    def write_metrics(self, steps=40):
        rows = [
            {"iteration": step, "total_loss": 2 - step / steps, "loss_cls": 1.0, "lr": 0.01}
            for step in range(9, steps, 10)
        ]
        rows.append({"iteration": steps, "bbox/AP": 30.0, "bbox/AP50": 60.0})
        (self.folder / "metrics.json").write_text("\n".join(map(json.dumps, rows)))

    def detect(self, images, *, score, shift=2.0, name="val"):
        """Find every object of the images, each ``shift`` pixels too far right."""
        found = [
            {
                "image_id": x["image_id"],
                "category_id": x["category_id"],
                "bbox": [x["bbox"][0] + shift, *x["bbox"][1:]],
                "score": score - 0.01 * x["id"],
            }
            for x in self.truth["annotations"]
            if x["image_id"] in images
        ]
        file = self.folder / "inference" / name / "coco_instances_results.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found))
