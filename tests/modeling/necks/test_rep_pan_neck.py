"""Rep-PAN: for deployment a PAFPN of single convolutions."""

import copy

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from support.batches import make_batch
from support.tiny_necks import make_neck, neck_cfg
from torch import nn

from retina_plugin import optimize_for_inference
from retina_plugin.modeling.layers.rep_conv import RepConv2d


def count(model, kind):
    return sum(isinstance(m, kind) for m in model.modules())


@pytest.mark.parametrize("depth", [1, 3])
def test_deployed_it_has_the_convolutions_of_a_pafpn(depth):
    neck = make_neck("RepPANNeck", depth=depth)
    blocks = 5 * depth + 2
    assert count(neck, RepConv2d) == blocks
    others = count(neck, nn.Conv2d) - 2 * blocks
    deployed = optimize_for_inference(neck)
    assert count(deployed, RepConv2d) == count(deployed, nn.BatchNorm2d) == 0
    assert count(deployed, nn.Conv2d) == others + blocks
    if depth == 1:
        pafpn = optimize_for_inference(make_neck("PAFPNNeck"))
        assert count(deployed, nn.Conv2d) == count(pafpn, nn.Conv2d)
        sizes = [sum(p.numel() for p in x.parameters()) for x in (deployed, pafpn)]
        assert sizes[0] == sizes[1]


def test_a_trained_detector_deployed_and_trained_on():
    """Same predictions; the original is as it was, and still learns."""
    model = build_model(neck_cfg("RepPANNeck", DEPTH=2)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    batch = make_batch()

    def step():
        with EventStorage():
            loss = sum(model(batch).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    first = [step() for _ in range(3)]
    before = copy.deepcopy(model.state_dict())
    modules = [type(m) for m in model.modules()]
    deployed = optimize_for_inference(model)
    assert model.training and [type(m) for m in model.modules()] == modules
    for tensor in deployed.state_dict().values():
        assert tensor.isfinite().all()

    model.eval()
    images = model.preprocess_image(batch)
    with torch.no_grad():
        expected, found = model.predict(images), deployed.predict(images)
    for want, got in zip(
        [*expected.features, *expected.logits, *expected.deltas],
        [*found.features, *found.logits, *found.deltas],
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4 * want.abs().max().item())

    for tensor in deployed.state_dict().values():
        tensor.zero_()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    model.train()
    assert step() < min(first)


@pytest.mark.parametrize("norm", ["BN", "SyncBN", "FrozenBN"])
def test_norms_whose_statistics_are_fixed_at_inference(norm):
    neck = make_neck("RepPANNeck", norm=norm).eval()
    x = torch.randn(1, 3, 64, 64)
    deployed = optimize_for_inference(neck)
    assert count(deployed, RepConv2d) == 0
    torch.testing.assert_close(deployed(x)["p5"], neck(x)["p5"], rtol=1e-4, atol=1e-4)


def test_no_block():
    with pytest.raises(ValueError, match=r"RepPANNeck.DEPTH counts blocks, 1 or more, got 0"):
        make_neck("RepPANNeck", depth=0)
