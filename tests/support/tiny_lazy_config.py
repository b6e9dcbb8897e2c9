"""The worked LazyConfig on a network of three convolutions and two images."""

from pathlib import Path

from support.block_data import write_blocks
from support.tiny_models import tiny_focal_cfg

WORKED = Path(__file__).parents[2] / "configs/lazy/retinanet_R_50_FPN_1x.py"

TINY = """
from detectron2.config import LazyCall as L, LazyConfig
from detectron2.data import DatasetCatalog, DatasetMapper
from detectron2.data.datasets import register_coco_instances
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from support.tiny_models import TinyBottomUp

base = LazyConfig.load({worked!r})
model, optimizer, lr_multiplier, train = (
    base.model, base.optimizer, base.lr_multiplier, base.train
)
dataloader = base.dataloader
model.num_classes = 3
model.post_processor.score_thresh = 0.0
model.head.update(input_shape=[ShapeSpec(channels=64)] * 5, conv_dims=[64], norm="GN")
model.backbone = L(FPN)(
    bottom_up=L(TinyBottomUp)(),
    in_features=["res3", "res4", "res5"],
    out_channels=64,
    top_block=L(LastLevelP6P7)(in_channels=16, out_channels=64, in_feature="res5"),
)
for split in ("train", "test"):
    name = "lazy_" + split
    if name not in DatasetCatalog:
        register_coco_instances(name, {{}}, f"{folder}/{{split}}.json", f"{folder}/{{split}}")
    dataloader[split].dataset.names = name
    dataloader[split].num_workers = 0
    dataloader[split].mapper = L(DatasetMapper)(
        is_train=split == "train", augmentations=[], image_format="BGR"
    )
dataloader.train.total_batch_size = 2
lr_multiplier.warmup_length = 0.5
lr_multiplier.scheduler.update(milestones=[14, 18, 20], values=[1.0, 0.1, 0.1**2])
train.update(init_checkpoint="", max_iter=4, device="cpu", output_dir="{folder}/output", seed=1)
train.checkpointer.period = 2
del base
"""


def write_tiny_lazy_config(folder: Path) -> Path:
    """Write data and ``tiny.py``, which trains four steps on both images into ``output``."""
    for split in ("train", "test"):
        write_blocks(folder, split, 2, seed=int(split == "test"))
    path = folder / "tiny.py"
    path.write_text(TINY.format(worked=str(WORKED), folder=folder))
    return path


def write_yaml_twin(folder: Path, *, steps: int) -> Path:
    """``twin.yaml``: what ``tiny.py`` says, of ``steps`` steps and on the same data."""
    cfg = tiny_focal_cfg(NUM_CLASSES=3, NORM="GN", NUM_CONVS=1, SCORE_THRESH_TEST=0.0)
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "OctaveAnchorGenerator"
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    cfg.MODEL.ANCHOR_GENERATOR.OctaveAnchorGenerator.SCALES_PER_OCTAVE = 3
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[0.5, 1.0, 2.0]]
    cfg.MODEL.RETINANET.SMOOTH_L1_LOSS_BETA = 0.0
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST = (0,), 0
    cfg.INPUT.RANDOM_FLIP = "none"
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SOLVER.BASE_LR, cfg.SOLVER.IMS_PER_BATCH = 0.01, 2
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS = steps, steps // 2
    cfg.SOLVER.STEPS = (steps * 7 // 10, steps * 9 // 10)
    cfg.SOLVER.CHECKPOINT_PERIOD, cfg.SOLVER.KEEP_CHECKPOINTS = 2, 100
    cfg.TEST.EVAL_PERIOD = 5000
    cfg.SEED, cfg.OUTPUT_DIR = 1, str(folder / "twin")
    for split in ("TRAIN", "TEST"):
        node = cfg.DATASETS.COCO[split]
        node.JSON = str(folder / f"{split.lower()}.json")
        node.IMAGES = str(folder / split.lower())
    path = folder / "twin.yaml"
    path.write_text(cfg.dump())
    return path
