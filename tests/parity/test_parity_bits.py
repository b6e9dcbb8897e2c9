"""What has Detectron2's operations has its bits: no tolerance.

Equal are inference, and every parameter's gradient of ``loss_box_reg`` (smooth L1). Not equal are

- the value of ``loss_box_reg``: the terms are the same, but are added up within each box first and
  level by level, where Detectron2 adds up one flat tensor, image by image;
- the value of ``loss_cls`` and its gradients: the background's term and its derivative are closed
  formulas over the raw maps (``losses/dense_sum.py``), where Detectron2 differentiates a focal loss
  of one-hot targets.

``test_parity_steps.py`` compares those within the rounding of a sum.
"""

import copy

import pytest
import torch
from detectron2.modeling import box_regression, build_model
from detectron2.utils.events import EventStorage
from support.batches import make_batch
from support.tiny_models import resnet18_cfg

from retina_plugin import add_retina_config
from retina_plugin.modeling.losses import smooth_l1_loss


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


@pytest.mark.parametrize("counts", [(6, 3), (20, 7), (60, 1), (0, 2), (0, 0)])
def test_gradients_of_the_box_loss(pair, counts, monkeypatch):
    batch, gradients, terms = make_batch(counts), [], []
    for module in (box_regression, smooth_l1_loss):
        compute = module.smooth_l1_loss

        def observed(x, y, beta, reduction, compute=compute):
            terms.append(compute(x, y, beta, reduction="none").detach().flatten().sort().values)
            return compute(x, y, beta, reduction=reduction)

        monkeypatch.setattr(module, "smooth_l1_loss", observed)
    for model in pair:
        model.train().zero_grad()
        with EventStorage():
            model(copy.deepcopy(batch))["loss_box_reg"].backward()
        gradients.append({k: x.grad for k, x in model.named_parameters() if x.requires_grad})
    stock, ours = gradients
    assert stock.keys() == ours.keys()
    for name, expected in stock.items():
        both = (expected, ours[name])
        assert both == (None, None) or torch.equal(*both), name
    assert any(x is not None and x.any() for x in stock.values()) == any(counts)
    assert len(terms) == 2 and torch.equal(*terms)
