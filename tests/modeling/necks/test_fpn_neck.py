"""The FPN as a neck: Detectron2's own, on the stages of any backbone."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.fpn import build_retinanet_resnet_fpn_backbone
from detectron2.modeling.backbone.resnet import build_resnet_backbone
from support.tiny_necks import C, GivenStages, make_neck

from retina_plugin.config.defaults import add_retina_config
from retina_plugin.registry import NECKS


def config(**keys):
    cfg = add_retina_config(get_cfg())
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 32
    cfg.merge_from_list([x for pair in keys.items() for x in pair])
    return cfg


def test_equals_detectron2s_with_the_same_names():
    cfg = config()
    stock = build_retinanet_resnet_fpn_backbone(cfg, ShapeSpec(channels=3)).eval()
    ours = NECKS.build(cfg, bottom_up=build_resnet_backbone(cfg, ShapeSpec(channels=3))).eval()
    ours.load_state_dict(stock.state_dict())
    assert ours.output_shape() == stock.output_shape()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for name, value in stock(x).items():
            assert torch.equal(ours(x)[name], value)


def test_p6_of_p5():
    cfg = config(**{"MODEL.NECK.FPNNeck.TOP": "P5"})
    neck = NECKS.build(cfg, bottom_up=build_resnet_backbone(cfg, ShapeSpec(channels=3)))
    assert neck.top_block.in_feature == "p5"
    assert set(neck(torch.randn(1, 3, 64, 64))) == {"p3", "p4", "p5", "p6", "p7"}


def test_p5_of_a_backbone_that_has_one():
    """FPN would build P6 of the backbone's and say nothing; the other necks take their own."""
    given = {f"p{i}": torch.randn(1, C, 2 ** (8 - i), 2 ** (8 - i)) for i in (3, 4, 5)}
    stages = GivenStages(given)
    with pytest.raises(ValueError, match=r"TOP P5: GivenStages has a 'p5' itself.*TOP to C5"):
        make_neck("FPNNeck", stages, in_features=list(given), top="P5")
    make_neck("FPNNeck", stages, in_features=list(given))(None)
    neck = make_neck("PAFPNNeck", stages, in_features=list(given), top="P5").eval()
    levels = neck(None)
    assert torch.equal(levels["p6"], neck.top_block.p6(levels["p5"]))
