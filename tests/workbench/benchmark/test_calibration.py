import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model
from support.batches import make_batch
from support.tiny_models import tiny_cfg

from retina_plugin.workbench.benchmark.calibration import calibrate, head_outputs


@pytest.fixture(scope="module")
def batch():
    torch.manual_seed(0)
    return make_batch((1, 1), sizes=((96, 96),))


@pytest.fixture(scope="module")
def resnet(resnet_cfg):
    torch.manual_seed(0)
    return build_model(resnet_cfg)


def share_above(model, batch, score=0.05):
    with torch.no_grad():
        logits = head_outputs(model, batch)[0]
    return sum((x.sigmoid() > score).sum().item() for x in logits) / len(batch)


def test_frozen_norms_normalize_and_scores_are_as_many(resnet, batch):
    calibrate(resnet, batch, candidates=200)
    outputs = []
    hooks = [
        m.register_forward_hook(lambda m, _, out: outputs.append(out / m.weight[:, None, None]))
        for m in resnet.modules()
        if isinstance(m, FrozenBatchNorm2d)
    ]
    above = share_above(resnet, batch)
    for hook in hooks:
        hook.remove()
    assert len(outputs) == 20
    assert all(0.9 < out.std() < 1.1 and out.mean().abs() < 0.1 for out in outputs)
    assert 195 <= above <= 205
    assert not any(m._forward_pre_hooks for m in resnet.modules())


def test_spread_is_what_the_parity_tests_build_on(resnet, batch):
    calibrate(resnet, batch)
    with torch.no_grad():
        logits, deltas = head_outputs(resnet, batch)
    assert torch.cat([x.flatten() for x in logits]).std() == pytest.approx(1.5, rel=0.01)
    assert torch.cat([x.flatten() for x in deltas]).std() == pytest.approx(0.3, rel=0.01)


def test_trained_norms_get_the_batchs_statistics(batch):
    model = build_model(tiny_cfg(NORM="BN"))
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    calibrate(model, batch)
    assert norms and all(norm.momentum == 0.1 for norm in norms)
    assert all(norm.running_mean.abs().sum() > 0 for norm in norms)


def test_a_prior_above_the_score_stays(batch):
    model = build_model(tiny_cfg(PRIOR_PROB=0.5))
    before = model.head.cls_score.weight.clone()
    calibrate(model, batch, candidates=10)
    assert torch.equal(model.head.cls_score.weight, before)
