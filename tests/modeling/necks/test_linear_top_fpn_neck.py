"""P7 without the ReLU before it; all else is FPNNeck's."""

import pytest
import torch
from support.foreign_models import detectron2_resnet

from retina_plugin.modeling.necks.fpn_neck import FPNNeck
from retina_plugin.modeling.necks.linear_top_fpn_neck import LinearTopFPNNeck


@pytest.mark.parametrize("top", ["C5", "P5"])
def test_differs_from_the_fpn_in_p7_alone(top):
    arguments = {"in_features": ["res3", "res4", "res5"], "out_channels": 8, "top": top}
    stock, ours = (
        neck(bottom_up=detectron2_resnet(18), **arguments).eval()
        for neck in (FPNNeck, LinearTopFPNNeck)
    )
    ours.load_state_dict(stock.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected, found = stock(x), ours(x)
        p7 = ours.top_block.p7(expected["p6"])
    for name in ("p3", "p4", "p5", "p6"):
        assert torch.equal(found[name], expected[name])
    assert torch.equal(found["p7"], p7)
    assert not torch.allclose(found["p7"], expected["p7"])
    assert ours.output_shape() == stock.output_shape()
