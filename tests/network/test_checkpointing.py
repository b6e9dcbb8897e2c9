"""A backbone whose activations are computed twice, against one that keeps them."""

import copy

import pytest
import torch
from detectron2.modeling import build_backbone, build_model
from support.batches import make_batch
from support.model_pairs import training_step
from support.tiny_models import mobilenet_cfg, resnet18_cfg
from torch import nn

from retina_plugin import add_retina_config
from retina_plugin.network.checkpointing import CheckpointedSequential, checkpoint_backbone


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
    assert isinstance(model.backbone.bottom_up.res4, CheckpointedSequential)


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
    assert type(backbone.bottom_up.res4) is nn.Sequential


def test_a_backbone_without_stages():
    with pytest.raises(ValueError, match=r"GRADIENT_CHECKPOINTING: Conv2d has no stages"):
        checkpoint_backbone(nn.Conv2d(1, 1, 1))
