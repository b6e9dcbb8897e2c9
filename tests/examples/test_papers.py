"""The papers' classes: each runs, is short, and does what its paper says."""

import ast
import importlib
import sys
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from support.batches import make_batch
from support.tiny_models import tiny_focal_cfg

from retina_plugin import loss_from_tensors
from retina_plugin.config.config_file import load_config
from retina_plugin.config.defaults import add_retina_config

PAPERS = Path(__file__).parents[2] / "examples" / "papers"


@pytest.fixture(autouse=True, scope="module")
def _importable():
    sys.path.append(str(PAPERS))
    yield
    sys.path.remove(str(PAPERS))


def cfg_with(name, **retinanet):
    """A tiny detector's config, with the keys that importing the example brings."""
    importlib.import_module(name)
    return add_retina_config(tiny_focal_cfg(**retinanet))


def trained(model, batch, steps=30, lr=2e-3):
    """Losses at the first and last of some steps on one batch."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr)
    totals = []
    with EventStorage():
        for _ in range(steps):
            losses = model(batch)
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
            totals.append({name: loss.item() for name, loss in losses.items()})
    return totals


@pytest.mark.parametrize("file", sorted(PAPERS.glob("*.py")), ids=lambda file: file.stem)
def test_every_class_and_function_has_at_most_40_lines(file):
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            assert node.end_lineno - node.lineno < 40, node.name


@pytest.mark.parametrize("file", sorted(PAPERS.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_config_loads(file):
    assert load_config(file).MODEL.META_ARCHITECTURE == "FocalRetinaNet"


def test_psych_occlusion_asks_less_of_what_is_hard_to_see():
    cfg = cfg_with("psych_occlusion", BBOX_REG_LOSS_TYPE="PsychOcclusionLoss")
    model = build_model(cfg)
    batch = make_batch()
    images = [x["image"].float() for x in batch]

    def gradient(distance, visibility):
        for x in batch:
            count = len(x["instances"])
            x["instances"].gt_distance = torch.full((count,), distance)
            x["instances"].gt_visibility = torch.full((count,), visibility)
        model.zero_grad()
        loss = loss_from_tensors(model, images, [x["instances"] for x in batch])["loss_box_reg"]
        loss.backward()
        return loss.item(), model.head.bbox_pred.weight.grad.norm().item()

    plain_cfg = tiny_focal_cfg(BBOX_REG_LOSS_TYPE="giou")
    plain = build_model(plain_cfg)
    plain.load_state_dict(model.state_dict())
    giou = loss_from_tensors(plain, images, [x["instances"] for x in batch])["loss_box_reg"].item()
    near, half, far = gradient(0.0, 1.0), gradient(0.0, 0.5), gradient(500.0, 1.0)
    assert near[0] == pytest.approx(giou, rel=1e-4)  # nothing to excuse: GIoU's
    assert near[1] > half[1] > 0 == far[1]
    assert half[1] == pytest.approx(near[1] / 2, rel=1e-3)


def test_masked_pgd_raises_the_loss_within_mask_and_bound():
    masked_pgd = importlib.import_module("masked_pgd").masked_pgd
    model = build_model(tiny_focal_cfg()).eval()
    images = torch.randint(256, (1, 3, 64, 96)).float()
    targets = [{"boxes": torch.tensor([[8.0, 8, 40, 44]]), "labels": torch.tensor([2])}]
    masks = torch.zeros(1, 1, 64, 96)
    masks[..., 48:] = 1
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def loss(images):
        return sum(loss_from_tensors(model, images, targets).values()).item()

    raised = masked_pgd(model, images, targets, masks, epsilon=8.0)
    lowered = masked_pgd(model, images, targets, masks, epsilon=8.0, sign=-1)
    assert loss(lowered) < loss(images) < loss(raised)
    change = (raised - images).abs()
    assert change.max() <= 8.0 + 1e-4 and not change[..., :48].any() and change[..., 48:].any()
    assert raised.min() >= 0 and raised.max() <= 255
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_distillation_follows_the_teacher_and_saves_the_student_alone(tmp_path):
    teacher_cfg = cfg_with("masked_distillation")
    teacher = build_model(teacher_cfg)
    weights, config = tmp_path / "teacher.pth", tmp_path / "teacher.yaml"
    torch.save({"model": teacher.state_dict()}, weights)
    config.write_text(teacher_cfg.dump())
    cfg = cfg_with("masked_distillation")
    cfg.MODEL.META_ARCHITECTURE = "DistilledRetinaNet"
    settings = cfg.MODEL.DETECTOR.DistilledRetinaNet
    settings.CONFIG, settings.WEIGHTS = str(config), str(weights)
    model = build_model(cfg)
    assert model.state_dict().keys() == teacher.state_dict().keys()
    batch = make_batch()
    losses = trained(model, batch)
    assert losses[0].keys() == {"loss_cls", "loss_box_reg", "loss_features", "loss_logits"}
    assert losses[-1]["loss_features"] < 0.7 * losses[0]["loss_features"]
    model.load_state_dict(teacher.state_dict())  # the same network: nothing to learn from it
    with EventStorage():
        assert model(batch)["loss_features"].item() == 0
    assert len(model.eval()(batch)) == 2  # detects without the teacher


@pytest.mark.parametrize("name", ["learned_scale", "filter_bank"])
def test_front_ends_train(name):
    cfg = tiny_focal_cfg()
    cfg.MODEL.FRONT_END = load_config(PAPERS / f"{name}.yaml").MODEL.FRONT_END
    cfg.MODEL.RETINANET.NORMALIZER.NAME = "FixedNormalizer"  # so that losses compare over time
    losses = [sum(x.values()) for x in trained(build_model(cfg), make_batch(), steps=8)]
    assert losses[-1] < losses[0]


def test_emo_backbone_learns():
    cfg = cfg_with("emo_backbone")
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_emo_fpn_backbone"
    cfg.MODEL.BACKBONE.EMO.WIDTH, cfg.MODEL.BACKBONE.EMO.DEPTHS = 8, (1, 1, 2, 1)
    cfg.MODEL.FPN.OUT_CHANNELS = 32
    cfg.MODEL.RETINANET.NORMALIZER.NAME = "FixedNormalizer"  # so that losses compare over time
    model = build_model(cfg)
    losses = [sum(x.values()) for x in trained(model, make_batch(), steps=80)]
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None for p in model.parameters())


def test_corner_head_adds_its_loss():
    cfg = tiny_focal_cfg()
    cfg.MODEL.RETINANET.HEAD.NAME = load_config(
        PAPERS / "corner_head.yaml"
    ).MODEL.RETINANET.HEAD.NAME
    losses = trained(build_model(cfg), make_batch())
    assert losses[-1]["loss_corner"] < losses[0]["loss_corner"]
