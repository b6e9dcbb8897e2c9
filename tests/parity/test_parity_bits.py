"""Inference has Detectron2's operations, so it has the bits: no tolerance.

The losses are sums in another order; ``test_parity_steps.py`` compares them and their gradients.
"""

import copy

import pytest
import torch
from detectron2.modeling import build_model
from support.batches import make_batch
from support.tiny_models import resnet18_cfg

from retina_plugin import add_retina_config


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    cfg = resnet18_cfg()
    stock = build_model(cfg)
    cfg = add_retina_config(cfg.clone())
    cfg.MODEL.META_ARCHITECTURE = "FocalRetinaNet"
    ours = build_model(cfg)
    ours.load_state_dict(stock.state_dict())
    return stock, ours


@torch.no_grad()
def test_maps_and_detections(pair):
    batch, found = make_batch(), []
    for model in pair:
        model.eval()
        features = model.backbone(model.preprocess_image(batch).tensor)
        features = [features[name] for name in model.head_in_features]
        maps = [level for outputs in model.head(features)[:2] for level in outputs]
        instances = [x["instances"] for x in model(copy.deepcopy(batch))]
        assert all(len(x) > 10 for x in instances)
        values = [(x.pred_boxes.tensor, x.scores, x.pred_classes) for x in instances]
        found.append([*features, *maps, *(value for x in values for value in x)])
    for expected, value in zip(*found, strict=True):
        assert torch.equal(value, expected)
