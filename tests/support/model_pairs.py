"""Detectron2's RetinaNet and ours with the same weights, run side by side and compared."""

from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.modeling.meta_arch import RetinaNet
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from retina_plugin import FocalRetinaNet
from retina_plugin.workbench.benchmark.calibration import calibrate

LOSS_TOLERANCE = 1e-5  # relative
GRADIENT_TOLERANCE = 1e-4  # relative, by the norm of each parameter's gradient
GRADIENT_FLOOR = 1e-7  # of all gradients' norm: a bias before a norm has 0 but for rounding
BOX_TOLERANCE = 1e-3  # pixels
SCORE_TOLERANCE = 1e-5


@dataclass
class Pair:
    """Two detectors of the same weights."""

    stock: RetinaNet
    ours: FocalRetinaNet

    def train(self, mode: bool = True) -> "Pair":
        self.stock.train(mode)
        self.ours.train(mode)
        return self


def build_pair(cfg: CfgNode, batch: list[dict], ours_cfg: CfgNode | None = None) -> Pair:
    """Build both from ``cfg``, make stock's random network behave on ``batch``, copy its weights.

    Args:
        cfg: a config of Detectron2's RetinaNet.
        batch: what the network is calibrated on.
        ours_cfg: the same for the plugin, if not ``cfg`` with another ``META_ARCHITECTURE``.
    """
    ours_cfg = (ours_cfg or cfg).clone()
    ours_cfg.MODEL.META_ARCHITECTURE = "FocalRetinaNet"
    pair = Pair(build_model(cfg), build_model(ours_cfg))
    assert type(pair.stock) is RetinaNet
    assert type(pair.ours) is FocalRetinaNet
    calibrate(pair.stock, batch)
    pair.ours.load_state_dict(pair.stock.state_dict())  # strict: every name fits
    return pair


@dataclass
class Step:
    """What one training step computes."""

    losses: dict[str, float]
    gradients: dict[str, Tensor]
    positives_per_image: float


def training_step(model: nn.Module, batch: list[dict]) -> Step:
    """Losses, the gradients of their sum, and what went to the event storage."""
    model.train()
    model.zero_grad()
    with EventStorage() as storage:
        losses = model(batch)
        positives = storage.latest()["num_pos_anchors"][0]
    sum(losses.values()).backward()
    return Step(
        {name: loss.item() for name, loss in losses.items()},
        {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None},
        positives,
    )


def assert_same_step(
    pair: Pair,
    batch: list[dict],
    *,
    loss_tolerance: float = LOSS_TOLERANCE,
    gradient_tolerance: float = GRADIENT_TOLERANCE,
) -> Step:
    """Run a training step of both and compare all of it; returns stock's."""
    stock, ours = training_step(pair.stock, batch), training_step(pair.ours, batch)
    assert ours.losses.keys() == stock.losses.keys()
    assert all(loss == loss for loss in stock.losses.values()), "stock's loss is NaN"
    for name, loss in stock.losses.items():
        assert abs(ours.losses[name] - loss) <= loss_tolerance * abs(loss), (name, stock, ours)
    assert ours.positives_per_image == stock.positives_per_image
    assert ours.gradients.keys() == stock.gradients.keys()
    total = torch.stack([g.norm() for g in stock.gradients.values()]).norm()
    for name, gradient in stock.gradients.items():
        difference = (ours.gradients[name] - gradient).norm()
        allowed = gradient_tolerance * gradient.norm() + GRADIENT_FLOOR * total
        assert difference <= allowed, (name, difference / gradient.norm(), gradient.norm() / total)
    return stock


@torch.no_grad()
def assert_same_detections(
    pair: Pair,
    batch: list[dict],
    *,
    at_least: int = 10,
    box_tolerance: float = BOX_TOLERANCE,
) -> None:
    """Compare boxes, scores and classes in order.

    Args:
        pair: see :func:`build_pair`.
        batch: images; the ground truth is not looked at.
        at_least: an image with fewer detections, or only one score, would prove nothing.
        box_tolerance: pixels.
    """
    pair.train(False)
    for expected, found in zip(pair.stock(batch), pair.ours(batch), strict=True):
        expected, found = expected["instances"], found["instances"]
        assert len(expected) >= at_least
        assert at_least <= 1 or expected.scores.unique().numel() > 1
        assert found.image_size == expected.image_size
        assert found.get_fields().keys() == expected.get_fields().keys()
        assert torch.equal(found.pred_classes, expected.pred_classes)
        close = {"rtol": 0, "check_dtype": True}
        torch.testing.assert_close(
            found.pred_boxes.tensor, expected.pred_boxes.tensor, atol=box_tolerance, **close
        )
        torch.testing.assert_close(found.scores, expected.scores, atol=SCORE_TOLERANCE, **close)
