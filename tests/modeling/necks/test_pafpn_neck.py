"""PAFPN against the same written out, and its first half against the FPN."""

import pytest
import torch
from support.tiny_necks import CHANNELS, GivenStages, make_neck
from torch.nn import functional as F

from retina_plugin.registry import NECKS


def stages(sizes=((12, 20), (6, 10), (3, 5))):
    return {
        name: torch.randn(2, channels, *size)
        for (name, channels), size in zip(CHANNELS.items(), sizes, strict=True)
    }


@pytest.mark.parametrize("top", ["C5", "P5"])
def test_equals_the_formula(top):
    given = stages()
    neck = make_neck("PAFPNNeck", GivenStages(given), norm="", top=top)
    weights = neck.state_dict()

    def conv(name, x, stride=1):
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return F.conv2d(x, weight, bias, stride, padding=weight.shape[-1] // 2)

    c3, c4, c5 = given.values()
    t5 = conv("fpn_lateral5", c5)
    t4 = conv("fpn_lateral4", c4) + t5.repeat_interleave(2, 2).repeat_interleave(2, 3)
    t3 = conv("fpn_lateral3", c3) + t4.repeat_interleave(2, 2).repeat_interleave(2, 3)
    n3 = conv("fpn_output3", t3)
    n4 = conv("pan_output4", conv("fpn_output4", t4) + conv("pan_down4", n3, 2))
    n5 = conv("pan_output5", conv("fpn_output5", t5) + conv("pan_down5", n4, 2))
    p6 = conv("top_block.p6", c5 if top == "C5" else n5, 2)
    p7 = conv("top_block.p7", p6.relu(), 2)
    found = neck(None)
    for level, expected in zip(found, (n3, n4, n5, p6, p7), strict=True):
        torch.testing.assert_close(found[level], expected, rtol=1e-5, atol=1e-5)


def test_weights_of_an_fpn_load():
    """All of them, by their names; then P3, P6 and P7 are the FPN's."""
    given = GivenStages(stages())
    fpn, pafpn = make_neck("FPNNeck", given).eval(), make_neck("PAFPNNeck", given).eval()
    missing, unexpected = pafpn.load_state_dict(fpn.state_dict(), strict=False)
    assert not unexpected
    assert {name.split(".")[0] for name in missing} == {
        *("pan_down4", "pan_down5", "pan_output4", "pan_output5")
    }
    expected, found = fpn(None), pafpn(None)
    for level in ("p3", "p6", "p7"):
        torch.testing.assert_close(found[level], expected[level])
    assert not torch.allclose(found["p5"], expected["p5"])


def test_layers_of_another_make():
    """What RepPANNeck does, for anybody."""
    made = []

    def layer(channels, *, stride, norm):
        made.append((stride, norm))
        return torch.nn.AvgPool2d(3, stride, padding=1)

    neck = NECKS.get("PAFPNNeck")(
        bottom_up=GivenStages(stages()), in_features=list(CHANNELS), out_channels=4, layer=layer
    )
    assert sorted(made) == [(1, "")] * 5 + [(2, "")] * 2
    assert neck(None)["p5"].shape == (2, 4, 3, 5)
