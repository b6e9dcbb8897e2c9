# The values of Detectron2's COCO-Detection/retinanet_R_50_FPN_1x.py, except for the detector.
# Written out because its own file is reached through detectron2.model_zoo, which imports
# pkg_resources, and because a Detectron2 may be installed without its configs.
import torch
from detectron2.config import LazyCall as L
from detectron2.data import (
    DatasetMapper,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.data import transforms as T
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling.backbone import FPN, BasicStem, ResNet
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from detectron2.solver import WarmupParamScheduler
from detectron2.solver.build import get_default_optimizer_params
from fvcore.common.param_scheduler import MultiStepParamScheduler
from omegaconf import OmegaConf

dataloader = OmegaConf.create(
    {
        "train": L(build_detection_train_loader)(
            dataset=L(get_detection_dataset_dicts)(names="coco_2017_train"),
            mapper=L(DatasetMapper)(
                is_train=True,
                augmentations=[
                    L(T.ResizeShortestEdge)(
                        short_edge_length=(640, 672, 704, 736, 768, 800),
                        sample_style="choice",
                        max_size=1333,
                    ),
                    L(T.RandomFlip)(horizontal=True),
                ],
                image_format="BGR",
                use_instance_mask=False,
            ),
            total_batch_size=16,
            num_workers=4,
        ),
        "test": L(build_detection_test_loader)(
            dataset=L(get_detection_dataset_dicts)(names="coco_2017_val", filter_empty=False),
            mapper=L(DatasetMapper)(
                is_train=False,
                augmentations=[L(T.ResizeShortestEdge)(short_edge_length=800, max_size=1333)],
                image_format="${...train.mapper.image_format}",
            ),
            num_workers=4,
        ),
        "evaluator": L(COCOEvaluator)(dataset_name="${..test.dataset.names}"),
    },
    flags={"allow_objects": True},
)

STEPS = 90_000  # of 16 images: 12 epochs of COCO
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(MultiStepParamScheduler)(
        values=[1.0, 0.1, 0.01], milestones=[60_000, 80_000, STEPS]
    ),
    warmup_length=1000 / STEPS,
    warmup_method="linear",
    warmup_factor=0.001,
)

optimizer = L(torch.optim.SGD)(
    params=L(get_default_optimizer_params)(weight_decay_norm=0.0),  # params.model: the trainer
    lr=0.01,
    momentum=0.9,
    weight_decay=1e-4,
)

train = {
    "output_dir": "./output",
    "init_checkpoint": "detectron2://ImageNetPretrained/MSRA/R-50.pkl",
    "max_iter": STEPS,
    "amp": {"enabled": False},
    "ddp": {
        "broadcast_buffers": False,
        "find_unused_parameters": False,
        "fp16_compression": False,
    },
    "checkpointer": {"period": 5000, "max_to_keep": 100},
    "eval_period": 5000,
    "log_period": 20,
    "device": "cuda",
}

backbone = L(FPN)(
    bottom_up=L(ResNet)(
        stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
        stages=L(ResNet.make_default_stages)(depth=50, stride_in_1x1=True, norm="FrozenBN"),
        out_features=["res3", "res4", "res5"],
        freeze_at=2,
    ),
    in_features=["res3", "res4", "res5"],
    out_channels=256,
    top_block=L(LastLevelP6P7)(in_channels=2048, out_channels="${..out_channels}"),
)
pixel_mean = [103.530, 116.280, 123.675]  # BGR, of 0-255
pixel_std = [1.0, 1.0, 1.0]  # the weights have it in their first layer
