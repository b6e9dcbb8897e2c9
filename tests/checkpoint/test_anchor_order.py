"""The order of anchors; that it is the right one, the converters' tests show."""

import torch

from retina_plugin.checkpoint.anchor_order import inverse, ratios_first, reorder


def test_ratio_by_ratio_becomes_size_by_size():
    theirs = [(ratio, size) for ratio in "abc" for size in (1, 2)]
    ours = [(ratio, size) for size in (1, 2) for ratio in "abc"]
    assert [theirs[i] for i in ratios_first(num_ratios=3, num_sizes=2)] == ours


def test_an_outputs_channels_go_anchor_by_anchor():
    weight = torch.arange(6 * 2).view(12, 1, 1, 1)  # two classes
    order = ratios_first(num_ratios=3, num_sizes=2)
    moved = reorder(weight, order)
    assert moved.flatten().tolist() == [2 * i + k for i in order for k in (0, 1)]
    assert torch.equal(reorder(moved, inverse(order)), weight)
