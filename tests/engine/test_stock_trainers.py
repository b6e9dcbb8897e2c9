"""Detectron2's own trainers and loops take the detector; each test does the steps of one tool."""

from itertools import islice
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.data import (
    DatasetMapper,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.engine import DefaultPredictor, DefaultTrainer, SimpleTrainer, hooks
from detectron2.evaluation import COCOEvaluator, inference_on_dataset
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.solver import build_lr_scheduler, build_optimizer
from detectron2.utils.events import EventStorage
from support.batches import make_image
from support.tiny_models import CHANNELS, tiny_cfg
from support.tiny_training import tiny_training_cfg

from retina_plugin import FocalRetinaNet
from retina_plugin.modeling.assigners.max_iou_assigner import MaxIoUAssigner
from retina_plugin.modeling.coders.delta_coder import DeltaCoder
from retina_plugin.modeling.heads.focal_retinanet_head import FocalRetinaNetHead
from retina_plugin.modeling.losses.focal_loss import FocalLoss
from retina_plugin.modeling.losses.smooth_l1_loss import SmoothL1Loss
from retina_plugin.modeling.normalizers.ema_normalizer import EMANormalizer
from retina_plugin.modeling.post_processors.nms_post_processor import NMSPostProcessor


@pytest.fixture
def cfg(tmp_path):
    """A config of Detectron2's RetinaNet; ours is one other line."""
    ours = tiny_training_cfg(tmp_path)  # registers the data
    cfg = tiny_cfg(NUM_CLASSES=3, NORM="GN", SCORE_THRESH_TEST=0.0)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ours.DATASETS.TRAIN, ours.DATASETS.TEST
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST = (96,), 96
    cfg.INPUT.RANDOM_FLIP = "none"
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS = 2, 3, 2
    cfg.SOLVER.STEPS = (2,)
    cfg.SEED = 1
    cfg.OUTPUT_DIR = str(tmp_path / "output")
    cfg.MODEL.META_ARCHITECTURE = "FocalRetinaNet"
    return cfg


def plain_loop(cfg):
    """As ``plain_train_net.py``: losses of each step, and the trained model."""
    Path(cfg.OUTPUT_DIR).mkdir(exist_ok=True)  # as default_setup does
    torch.manual_seed(0)
    model = build_model(cfg).train()
    optimizer = build_optimizer(cfg, model)
    scheduler = build_lr_scheduler(cfg, optimizer)
    checkpointer = DetectionCheckpointer(model, cfg.OUTPUT_DIR, optimizer=optimizer)
    losses = []
    with EventStorage() as storage:
        for data in islice(build_detection_train_loader(cfg), cfg.SOLVER.MAX_ITER):
            storage.step()
            loss_dict = model(data)
            loss = sum(loss_dict.values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            losses.append({name: value.item() for name, value in loss_dict.items()})
    checkpointer.save("plain")
    return losses, model


def evaluate(cfg, model):
    name = cfg.DATASETS.TEST[0]
    evaluator = COCOEvaluator(name, output_dir=cfg.OUTPUT_DIR, use_fast_impl=False)
    return inference_on_dataset(model, build_detection_test_loader(cfg, name), evaluator)


def test_the_plain_loop_learns_what_detectron2s_model_learns(cfg, tmp_path):
    ours, model = plain_loop(cfg)
    results = evaluate(cfg, model)
    stock_cfg = cfg.clone()
    stock_cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    stock_cfg.OUTPUT_DIR = str(tmp_path / "stock")
    stock, stock_model = plain_loop(stock_cfg)
    assert len(ours) == 3
    for own, right in zip(ours, stock, strict=True):
        assert own == pytest.approx(right, rel=1e-4)
    assert results["bbox"].keys() == evaluate(stock_cfg, stock_model)["bbox"].keys()


def test_default_trainer_and_default_predictor(cfg):
    class Trainer(DefaultTrainer):
        @classmethod
        def build_evaluator(cls, cfg, dataset_name):
            return COCOEvaluator(dataset_name, output_dir=cfg.OUTPUT_DIR, use_fast_impl=False)

    trainer = Trainer(cfg)
    assert isinstance(trainer.model, FocalRetinaNet)
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert "AP" in Trainer.test(cfg, trainer.model)["bbox"]

    cfg.MODEL.WEIGHTS = f"{cfg.OUTPUT_DIR}/model_final.pth"
    predictor = DefaultPredictor(cfg)
    image = make_image(120, 160).permute(1, 2, 0).numpy()
    found = predictor(image)["instances"]
    assert found.image_size == (120, 160)
    with torch.no_grad():
        again = DefaultPredictor(cfg)(image)["instances"]
    assert torch.equal(found.pred_boxes.tensor, again.pred_boxes.tensor)

    resumed = Trainer(cfg)
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == cfg.SOLVER.MAX_ITER


def lazy_model(cfg):
    """The detector of ``cfg`` without a config, as a LazyConfig builds it."""
    backbone = build_model(cfg).backbone
    shapes = [ShapeSpec(channels=CHANNELS, stride=2**level) for level in range(3, 8)]
    coder = L(DeltaCoder)()
    return L(FocalRetinaNet)(
        backbone=backbone,
        head=L(FocalRetinaNetHead)(
            input_shape=shapes, num_classes=3, num_anchors=9, conv_dims=[CHANNELS]
        ),
        head_in_features=cfg.MODEL.RETINANET.IN_FEATURES,
        anchor_generator=L(DefaultAnchorGenerator)(
            sizes=cfg.MODEL.ANCHOR_GENERATOR.SIZES,
            aspect_ratios=[0.5, 1.0, 2.0],
            strides=[x.stride for x in shapes],
        ),
        num_classes=3,
        assigner=L(MaxIoUAssigner)(),
        box_coder=coder,
        cls_loss=L(FocalLoss)(),
        box_loss=L(SmoothL1Loss)(),
        normalizer=L(EMANormalizer)(),
        post_processor=L(NMSPostProcessor)(coder=coder, num_classes=3, score_thresh=0.0),
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
    )


def test_the_lazy_loop(cfg):
    """As ``lazyconfig_train_net.py``: instantiated parts, its trainer and its hooks."""
    Path(cfg.OUTPUT_DIR).mkdir()
    model = instantiate(lazy_model(cfg))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    loader = build_detection_train_loader(cfg, mapper=DatasetMapper(cfg, is_train=True))
    trainer = SimpleTrainer(model, loader, optimizer)
    checkpointer = DetectionCheckpointer(
        model, cfg.OUTPUT_DIR, optimizer=optimizer, trainer=trainer
    )
    results = []
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.PeriodicCheckpointer(checkpointer, period=2, max_iter=3),
            hooks.EvalHook(0, lambda: results.append(evaluate(cfg, model))),
        ]
    )
    trainer.train(0, 3)
    assert "AP" in results[0]["bbox"]
    assert checkpointer.has_checkpoint()
