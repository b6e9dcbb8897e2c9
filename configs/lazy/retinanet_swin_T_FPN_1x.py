# Detectron2's Swin-T: the LazyConfig retinanet_R_50_FPN_1x with another backbone.
# Any other backbone of retina_plugin.modeling.backbones goes the same way, such as
# L(Torchvision)(model="convnext_tiny"), and the necks of retina_plugin.modeling.necks in FPNNeck's
# place.
# Weights: train.init_checkpoint=YOUR.pth
# command:  python train_net.py --config-file configs/lazy/retinanet_swin_T_FPN_1x.py --num-gpus 8
# time:     not measured here
# expected: not measured here
from detectron2.config import LazyCall as L

from retina_plugin.modeling.backbones.pixel_format import IMAGENET_RGB
from retina_plugin.modeling.backbones.swin_fpn import SwinStages
from retina_plugin.modeling.necks.fpn_neck import FPNNeck

from .retinanet_R_50_FPN_1x import dataloader, lr_multiplier, model, optimizer, train

model.backbone = L(FPNNeck)(
    bottom_up=L(SwinStages)(
        out_features="${..in_features}",
        embed_dim=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        window_size=7,
        drop_path_rate=0.2,
        in_channels=3,
    ),
    in_features=["res3", "res4", "res5"],
    out_channels=256,
    top="C5",
)
model.pixel_mean, model.pixel_std = list(IMAGENET_RGB.mean), list(IMAGENET_RGB.std)
model.input_format = "RGB"
for split in ("train", "test"):
    dataloader[split].mapper.image_format = "RGB"
train.init_checkpoint = ""

__all__ = ["dataloader", "lr_multiplier", "model", "optimizer", "train"]
