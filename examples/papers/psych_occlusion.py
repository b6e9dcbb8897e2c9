"""Box loss that asks less where people see less: far away, or hidden (Psych-Occlusion).

The json's annotations have `distance` and `visibility` (1 is all of it):

    train_net.py --import examples/papers/psych_occlusion.py --config-file YOUR.yaml \
        MODEL.RETINANET.BBOX_REG_LOSS_TYPE PsychOcclusionLoss \
        DATASETS.COCO.EXTRA_ANNOTATION_KEYS "['distance', 'visibility']"

The penalty's course is ours; the paper fits it to people's answers.
"""

from torch import nn

from retina_plugin.modeling.losses.giou_loss import GIoULoss
from retina_plugin.registry import BOX_LOSSES


@BOX_LOSSES.register(defaults={"A": 0.1, "B": 1.0, "FAR": 100.0})
class PsychOcclusionLoss(nn.Module):
    """`A * pen + B * (1 - pen) * L`, L being GIoU's, pen in [0, 1] an object's difficulty.

    Args:
        a: loss of an object of difficulty 1.
        b: weight of the loss L of an object of difficulty 0.
        far: distance from which the distance's part of the difficulty is 1.
    """

    def __init__(self, *, a, b, far):
        super().__init__()
        self.a, self.b, self.far = a, b, far
        self.loss = GIoULoss()

    def forward(self, positives):
        near = 1 - (positives.field("gt_distance") / self.far).clamp(max=1)
        penalty = 1 - near * positives.field("gt_visibility")
        return self.a * penalty + self.b * (1 - penalty) * self.loss(positives)
