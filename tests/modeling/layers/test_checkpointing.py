"""A backbone whose activations are computed twice, against one that keeps them."""

import copy

import pytest
import torch
from detectron2.modeling import build_backbone, build_model
from support.backbone_configs import backbone_cfg
from support.batches import make_batch
from support.model_pairs import training_step
from support.tiny_models import mobilenet_cfg, resnet18_cfg
from torch import nn

from retina_plugin import add_retina_config
from retina_plugin.modeling.layers.checkpointing import CheckpointedBlock, checkpoint_backbone


def focal_resnet18_cfg(norm="FrozenBN"):
    cfg = add_retina_config(resnet18_cfg(norm))
    cfg.MODEL.META_ARCHITECTURE = "FocalRetinaNet"
    return cfg


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize(("make", "blocks"), [(focal_resnet18_cfg, 8), (mobilenet_cfg, 18)])
def test_same_gradients_and_less_memory(make, blocks, fold):
    batch = make_batch()
    cfg = make()
    cfg.MODEL.BACKBONE.FREEZE_AT = 2
    cfg.MODEL.FOLD_FROZEN_NORMS = fold
    plain = build_model(cfg)
    model = copy.deepcopy(plain)
    assert checkpoint_backbone(model.backbone) == blocks
    assert list(model.state_dict()) == list(plain.state_dict())
    expected, found = training_step(plain, batch), training_step(model, batch)
    assert found.losses == expected.losses
    assert found.gradients.keys() == expected.gradients.keys()
    for name, gradient in expected.gradients.items():
        assert torch.equal(found.gradients[name], gradient), name
    assert kept_bytes(model, batch) < 0.75 * kept_bytes(plain, batch)


def kept_bytes(model, batch):
    """Of the tensors that the backbone's forward pass keeps for the backward pass."""
    kept = {}
    images = model.preprocess_image(batch).tensor
    parameters = {p.data_ptr() for p in model.parameters()}

    def keep(tensor):
        if tensor.data_ptr() not in parameters:
            kept[tensor.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.backbone(images)
    return sum(x.nbytes for x in kept.values())


def test_the_key():
    cfg = focal_resnet18_cfg()
    cfg.MODEL.BACKBONE.GRADIENT_CHECKPOINTING = True
    model = build_model(cfg)
    assert all(isinstance(m, CheckpointedBlock) for m in model.backbone.bottom_up.res4)


def test_evaluation_is_as_before():
    backbone = build_backbone(focal_resnet18_cfg()).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = backbone(images)
        checkpoint_backbone(backbone)
        for name, feature in backbone(images).items():
            assert torch.equal(feature, expected[name])


def test_batch_norm_would_count_twice():
    backbone = build_backbone(focal_resnet18_cfg("BN"))
    with pytest.raises(ValueError, match=r"GRADIENT_CHECKPOINTING.*BatchNorm2d.*FrozenBN"):
        checkpoint_backbone(backbone)
    assert not any(isinstance(m, CheckpointedBlock) for m in backbone.modules())


def test_a_backbone_without_stages():
    with pytest.raises(ValueError, match=r"GRADIENT_CHECKPOINTING: Conv2d has no stages"):
        checkpoint_backbone(nn.Conv2d(1, 1, 1))


def new_backbone_cfg(family, *overrides):
    cfg = backbone_cfg(family, *overrides)
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[x] for x in (32, 64, 128, 256, 512)]
    return cfg


SWIN = ("Swin.EMBED_DIM", 12, "Swin.NUM_HEADS", (1, 2, 3, 4), "Swin.DROP_PATH_RATE", 0.0)
MVIT = ("MViT.EMBED_DIM", 16, "MViT.DEPTHS", (1, 1, 1, 1), "MViT.DROP_PATH_RATE", 0.0)
VIT = ("ViT.EMBED_DIM", 24, "ViT.DEPTH", 4, "ViT.NUM_HEADS", 2, "ViT.DROP_PATH_RATE", 0.0)
REGNET = ("RegNet.DEPTH", 5, "RegNet.W_A", 31.4, "RegNet.W_0", 8, "RegNet.W_M", 2.2)
REGNET += ("RegNet.GROUP_WIDTH", 8, "RegNet.SE_RATIO", 0.25)


@pytest.mark.parametrize(
    ("family", "settings", "blocks"),
    [
        ("swin", SWIN, 12),
        ("mvit", MVIT, 4),
        ("vit", VIT, 4),
        ("regnet", REGNET, 6),
        ("torchvision", ("Torchvision.MODEL", "resnet18"), 8),
    ],
)
def test_other_backbones(family, settings, blocks):
    pairs = zip(settings[::2], settings[1::2], strict=True)
    cfg = new_backbone_cfg(family, *[x for k, v in pairs for x in (f"MODEL.BACKBONE.{k}", v)])
    cfg.MODEL.BACKBONE.FREEZE_AT = 1  # what comes first has no gradient to hand on
    plain, batch = build_model(cfg), make_batch()
    model = copy.deepcopy(plain)
    assert checkpoint_backbone(model.backbone) == blocks
    expected, found = training_step(plain, batch), training_step(model, batch)
    assert found.losses == expected.losses
    for name, gradient in expected.gradients.items():
        torch.testing.assert_close(found.gradients[name], gradient, rtol=1e-5, atol=1e-7)
    assert kept_bytes(model, batch) < 0.8 * kept_bytes(plain, batch)
