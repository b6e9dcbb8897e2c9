"""A small network looks at each image and says how large the detector shall see it (DyRA-like).

    train_net.py --import examples/papers/learned_scale.py --config-file YOUR.yaml \
        MODEL.META_ARCHITECTURE LearnedScaleRetinaNet

In the spirit of Seo et al., DyRA, 2023: there as here every object's own box loss says how much it
matters, and its size whether the image should grow or shrink for it.
"""

import torch
from detectron2.config import configurable
from detectron2.structures import Boxes, Instances
from torch import nn
from torch.nn import functional as F

from retina_plugin.batch_inputs import ground_truth_of
from retina_plugin.detector import FocalRetinaNet
from retina_plugin.registry import DETECTORS


@DETECTORS.register(defaults={"SIZE": 64.0, "LOOK": 128}, node="LearnedScaleRetinaNet")
class LearnedScaleRetinaNet(FocalRetinaNet):
    """Scales in [1/2, 2]; `loss_scale` pulls objects with a high box loss towards SIZE pixels."""

    @classmethod
    def from_config(cls, cfg):
        settings = DETECTORS.settings(cfg, "LearnedScaleRetinaNet")
        return {**super().from_config(cfg), "settings": settings}

    @configurable
    def __init__(self, *, settings, **parts):
        super().__init__(**parts)
        self.size, self.look = settings["SIZE"], settings["LOOK"]
        self.eye = nn.Sequential(nn.Conv2d(3, 16, 5, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.scale = nn.Linear(16, 1)
        nn.init.zeros_(self.scale.weight), nn.init.zeros_(self.scale.bias)  # at first: as it is

    def forward(self, batched_inputs, normalizer=None):
        pixels = [x["image"].to(self.device, torch.float32)[None] for x in batched_inputs]
        seen = torch.cat([F.interpolate(x, (self.look, self.look)) for x in pixels])
        exponents = self.scale(self.eye((seen - self.pixel_mean) / self.pixel_std).flatten(1))
        exponents = exponents[:, 0].tanh()
        factors = (2**exponents).tolist()
        scaled = [_scaled(*x) for x in zip(batched_inputs, pixels, factors, strict=True)]
        if not self.training:
            return super().forward(scaled)
        predictions = self.predict(self.preprocess_image(scaled))
        truth = [ground_truth_of(x, self.num_classes, self.device) for x in scaled]
        targets = self.assign(predictions, truth)
        losses = self.losses_of(predictions, targets, normalizer)
        weight = self.box_loss(self.positives_of(predictions, targets)).detach()
        sizes = Boxes(targets.field("gt_boxes")).area().sqrt()  # as the detector sees them
        wish = (self.size / sizes).log2()
        now = exponents[targets.positives.image]
        pull = weight * (now - (now.detach() + wish).clamp(-1, 1)).square()
        losses["loss_scale"] = pull.sum() / weight.sum().clamp(min=1e-6)
        return losses


def _scaled(given, pixels, factor):
    height, width = given["image"].shape[1:]
    size = max(1, round(height * factor)), max(1, round(width * factor))
    scaled = {"height": height, "width": width, **given}  # what detections are scaled back to
    scaled["image"] = F.interpolate(pixels, size, mode="bilinear")[0]
    ratio = torch.tensor([size[1] / width, size[0] / height]).repeat(2)
    if "instances" in given:
        fields = given["instances"].get_fields()
        boxes = Boxes(fields["gt_boxes"].tensor * ratio)
        scaled["instances"] = Instances(size, **{**fields, "gt_boxes": boxes})
    if "ignored_boxes" in given:
        scaled["ignored_boxes"] = Boxes(given["ignored_boxes"].tensor * ratio)
    return scaled
