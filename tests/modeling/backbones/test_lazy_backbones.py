"""Backbones as objects: the LazyConfig of Swin, and its model against the one by yaml."""

from pathlib import Path

import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.modeling import build_model
from support.batches import make_batch
from support.model_pairs import training_step

from retina_plugin.config.config_file import load_config
from retina_plugin.config.lazy_file import load_lazy
from retina_plugin.modeling.backbones.torchvision_fpn import Torchvision
from retina_plugin.modeling.backbones.vit_fpn import PlainViT, SimplePyramid
from retina_plugin.modeling.necks.fpn_neck import FPNNeck

ROOT = Path(__file__).parents[3]
LAZY = ROOT / "configs/lazy/retinanet_swin_T_FPN_1x.py"


def tiny_lazy():
    cfg = load_lazy(str(LAZY))
    cfg.model.backbone.bottom_up.update(embed_dim=12, num_heads=[1, 2, 3, 4], drop_path_rate=0.0)
    cfg.model.num_classes = 7
    return cfg


def test_swin_is_the_yamls():
    lazy = tiny_lazy()
    assert lazy.dataloader.train.mapper.image_format == lazy.model.input_format == "RGB"
    cfg = load_config(ROOT / "configs/backbones/swin_tiny_1x.yaml")
    swin = cfg.MODEL.BACKBONE.Swin
    swin.EMBED_DIM, swin.NUM_HEADS, swin.DROP_PATH_RATE = 12, (1, 2, 3, 4), 0.0
    cfg.MODEL.RETINANET.NUM_CLASSES, cfg.MODEL.DEVICE = 7, "cpu"
    torch.manual_seed(1)
    by_name = build_model(cfg)
    torch.manual_seed(1)
    model = instantiate(lazy.model)
    model.load_state_dict(by_name.state_dict())
    batch = make_batch()
    expected, found = training_step(by_name, batch), training_step(model, batch)
    assert found.losses == expected.losses


def test_other_backbones_and_pyramids():
    lazy = tiny_lazy()
    image = torch.randn(1, 3, 128, 128)
    for backbone in (
        L(FPNNeck)(
            bottom_up=L(Torchvision)(model="mobilenet_v3_small", norm="GN"),
            in_features=["res3", "res4", "res5"],
            out_channels=256,
        ),
        L(SimplePyramid)(net=L(PlainViT)(embed_dim=24, depth=4, num_heads=2), out_channels=256),
    ):
        lazy.model.backbone = backbone
        model = instantiate(lazy.model).eval()
        with torch.no_grad():
            assert list(model.backbone(image)) == ["p3", "p4", "p5", "p6", "p7"]
