"""A frozen teacher's features, where objects are, and its scores as a second target.

    train_net.py --import examples/papers/masked_distillation.py --config-file STUDENT.yaml \
        MODEL.META_ARCHITECTURE DistilledRetinaNet MODEL.DETECTOR.DistilledRetinaNet.CONFIG \
        TEACHER.yaml MODEL.DETECTOR.DistilledRetinaNet.WEIGHTS teacher.pth

In the spirit of dual scale-aware masked distillation: teacher and student have the same classes,
anchors, levels and channels of the FPN, and nothing of the student's is generated from masks.
"""

from dataclasses import replace

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import configurable
from torch.nn import functional as F

from retina_plugin.config.config_file import load_config
from retina_plugin.modeling.detector import FocalRetinaNet
from retina_plugin.registry import DETECTORS


@DETECTORS.register(
    defaults={"CONFIG": "", "WEIGHTS": "", "FEATURES": 1.0, "LOGITS": 1.0},
    node="DistilledRetinaNet",
)
class DistilledRetinaNet(FocalRetinaNet):
    """`loss_features`: squared differences in cells with a sure teacher; `loss_logits`: BCE.

    Args:
        config: path of the teacher's config.
        weights: path of the teacher's weights.
        features: weight of `loss_features`.
        logits: weight of `loss_logits`.
    """

    @classmethod
    def from_config(cls, cfg):
        settings = DETECTORS.settings(cfg, "DistilledRetinaNet")
        teacher_cfg = load_config(settings["CONFIG"], ["MODEL.DEVICE", cfg.MODEL.DEVICE])
        teacher_cfg.MODEL.RETINANET.NUM_CLASSES = cfg.MODEL.RETINANET.NUM_CLASSES
        teacher = FocalRetinaNet(teacher_cfg).to(cfg.MODEL.DEVICE).eval().requires_grad_(False)
        DetectionCheckpointer(teacher).load(settings["WEIGHTS"])
        return {**super().from_config(cfg), "teacher": teacher, "settings": settings}

    @configurable
    def __init__(self, *, teacher, settings, **parts):
        super().__init__(**parts)
        self._frozen, self._settings = (teacher,), settings  # a tuple: not in the checkpoints

    def predict(self, images, instances=None):
        predictions = super().predict(images, instances)
        if not self.training:
            return predictions
        with torch.no_grad():
            teacher = self._frozen[0].predict(images)
        theirs = {"teacher_features": teacher.features, "teacher_logits": teacher.logits}
        return replace(predictions, extras={**predictions.extras, **theirs})

    def losses_of(self, predictions, targets, normalizer=None):
        losses = super().losses_of(predictions, targets, normalizer)
        features, logits = masked_differences(predictions)
        losses["loss_features"] = self._settings["FEATURES"] * features
        losses["loss_logits"] = self._settings["LOGITS"] * logits
        return losses


def masked_differences(predictions):
    """Means over the cells of features and logits, weighted by the teacher's best score there."""
    scores = [x.sigmoid() for x in predictions.extras["teacher_logits"]]
    masks = [x.amax(dim=1, keepdim=True) for x in scores]  # (N, 1, H, W)
    of_features = of_logits = 0.0
    others = predictions.extras["teacher_features"]
    maps = zip(predictions.features, others, predictions.logits, scores, masks, strict=True)
    for own, other, map_, score, mask in maps:
        of_features += ((own - other).square().mean(dim=1, keepdim=True) * mask).sum()
        of_logits += F.binary_cross_entropy_with_logits(map_, score, mask, reduction="sum")
    cells = sum(mask.sum() for mask in masks)
    return of_features / cells, of_logits / cells
