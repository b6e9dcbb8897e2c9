"""Trainings of six steps on two images, which are every batch; with evaluations of any result."""

from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.utils.events import JSONWriter
from support.block_data import as_overrides, write_blocks
from support.tiny_models import tiny_cfg

from retina_plugin.config.defaults import add_retina_config
from retina_plugin.data.coco_registration import register_datasets
from retina_plugin.engine.trainer import RetinaTrainer


def tiny_training_cfg(folder: Path, *overrides) -> CfgNode:
    """Registered data of three classes; ``OUTPUT_DIR`` is ``folder/output``."""
    train, test = (write_blocks(folder / "data", split, 2) for split in ("train", "test"))
    cfg = add_retina_config(tiny_cfg(NUM_CLASSES=3, NORM="GN", SCORE_THRESH_TEST=0.0))
    cfg.merge_from_list(
        [
            *as_overrides(train, test),
            *("MODEL.META_ARCHITECTURE", "FocalRetinaNet"),
            *("INPUT.MIN_SIZE_TRAIN", (96,), "INPUT.MIN_SIZE_TEST", 96),
            *("INPUT.RANDOM_FLIP", "none"),
            *("DATALOADER.NUM_WORKERS", 0, "SOLVER.IMS_PER_BATCH", 2),
            *("SOLVER.MAX_ITER", 6, "SOLVER.WARMUP_ITERS", 2, "SOLVER.CHECKPOINT_PERIOD", 3),
            *("SOLVER.BASE_LR", 0.01, "SOLVER.STEPS", (4,)),
            *("OUTPUT_DIR", str(folder / "output"), "SEED", 1),
            *overrides,
        ]
    )
    register_datasets(cfg)
    return cfg


class Scripted(RetinaTrainer):
    """Evaluations find what a test says, one value after the other; ``weights`` are those seen.

    Writes ``metrics.json`` alone: pictures take longer than the steps.
    """

    values: list
    weights: list

    def build_writers(self):
        Path(self.cfg.OUTPUT_DIR).mkdir(exist_ok=True)
        return [JSONWriter(str(Path(self.cfg.OUTPUT_DIR) / "metrics.json"))]

    @classmethod
    def test(cls, cfg, model, evaluators=None):
        cls.weights.append(model.head.cls_score.weight.detach().clone())
        value = cls.values[len(cls.weights) - 1]
        return value if isinstance(value, dict) else {"bbox": {"AP": value}}


def train_scripted(cfg, values, *, resume=False, stop_before=None, base=Scripted) -> type[Scripted]:
    """Train with these results; ``stop_before`` ends it in that step as a power cut would."""

    class Trainer(base):
        weights = []

        def run_step(self):
            if self.iter == stop_before:
                raise KeyboardInterrupt
            super().run_step()

        @classmethod
        def build_evaluator(cls, cfg, dataset_name):
            raise AssertionError("evaluations are scripted")

    Trainer.values = values
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    if stop_before is None:
        Trainer.results = trainer.train()
    else:
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
    Trainer.steps = trainer.iter
    return Trainer
