"""The task-aligned head against its formulas, written out."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from torch import nn
from torch.nn import functional as F

from retina_plugin.modeling.heads.task_aligned_head import TaskAlignedHead, TaskDecomposition

C, K = 16, 3
SIZES = ((4, 6), (2, 3))


def make_head(**arguments):
    settings = {
        "input_shape": [ShapeSpec(channels=C)] * 2,
        "num_classes": K,
        "conv_dims": [C] * 3,
        "num_anchors": 2,
    }
    head = TaskAlignedHead(**{**settings, **arguments})
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.2)
    return head


def plain_decomposition(module, layers):
    """Equations 2 and 3, a layer after the other."""
    x = torch.cat(layers, dim=1).mean(dim=(2, 3))
    first, second = module.attention[0], module.attention[2]
    hidden = F.linear(x, first.weight.flatten(1), first.bias).relu()
    weights = F.linear(hidden, second.weight.flatten(1), second.bias).sigmoid()
    own = [w[:, None, None, None] * x for w, x in zip(weights.unbind(1), layers, strict=True)]
    return module.norm(F.conv2d(torch.cat(own, 1), module.reduction.weight, module.reduction.bias))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("norm", [nn.Identity(), nn.GroupNorm(4, C)])
def test_decomposition(norm, layout):
    module = TaskDecomposition(channels=C, num_layers=3, norm=norm)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    layers = [torch.rand(2, C, 4, 5).contiguous(memory_format=layout) for _ in range(3)]
    found = module(torch.cat(layers, dim=1))
    torch.testing.assert_close(found, plain_decomposition(module, layers).relu())


def test_the_formulas_of_the_paper():
    head = make_head()
    features = [torch.randn(2, C, h, w) for h, w in SIZES]
    logits, deltas = head(features)
    for x, found, boxes in zip(features, logits, deltas, strict=True):
        layers = []
        for conv in (layer for layer in head.tower if isinstance(layer, nn.Conv2d)):
            x = conv(x).relu()
            layers.append(x)
        classes = head.cls_score(plain_decomposition(head.cls_decomposition, layers).relu())
        hidden = head.alignment_reduction[0](torch.cat(layers, dim=1)).relu()
        alignment = head.alignment(hidden).repeat_interleave(K, dim=1)
        expected = (classes.sigmoid() * alignment.sigmoid()).sqrt()
        torch.testing.assert_close(found.sigmoid(), expected)
        own = head.bbox_pred(plain_decomposition(head.bbox_decomposition, layers).relu())
        torch.testing.assert_close(boxes, own)


def test_one_tower():
    names = {name.split(".")[0] for name, _ in make_head().named_parameters()}
    assert "tower" in names and not {"cls_subnet", "bbox_subnet"} & names


def test_batch_norms_see_the_levels_apart():
    head = make_head(norm="BN").train()
    head([torch.randn(2, C, h, w) + 10 * i for i, (h, w) in enumerate(SIZES)])
    first, second = head.cls_decomposition.norm
    assert first.num_batches_tracked == second.num_batches_tracked == 1


@pytest.mark.parametrize("conv_dims", [[], [C, 2 * C]])
def test_wrong_convolutions(conv_dims):
    with pytest.raises(ValueError, match=r"NUM_CONVS.*got conv_dims \["):
        make_head(conv_dims=conv_dims)
