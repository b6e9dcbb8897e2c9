"""The worked LazyConfig on a network of three convolutions and two images."""

from pathlib import Path

from support.block_data import write_blocks

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
train.update(init_checkpoint="", max_iter=4, device="cpu", output_dir="{folder}/output", seed=1)
train.checkpointer.period = 2
del base
"""


def write_tiny_lazy_config(folder: Path) -> Path:
    """Write data and ``tiny.py``, which trains four steps on both images into ``output``."""
    for split in ("train", "test"):
        write_blocks(folder, split, 2)
    path = folder / "tiny.py"
    path.write_text(TINY.format(worked=str(WORKED), folder=folder))
    return path
