"""Several training steps in a row: the normalizer's average, the norms' statistics, the weights."""

import copy

import pytest
import torch
from support.batches import make_batch
from support.model_pairs import assert_same_detections, assert_same_step, build_pair
from support.tiny_models import tiny_cfg


def test_normalizer_follows_stock():
    batches = [make_batch(counts) for counts in ((6, 3), (0, 0), (200, 0), (1, 1))]
    pair = build_pair(tiny_cfg(), batches[0])
    for batch in batches:
        assert_same_step(pair, batch)
        assert pair.ours.normalizer.average.item() == pytest.approx(
            pair.stock.loss_normalizer, rel=1e-6
        )
    assert abs(pair.stock.loss_normalizer - 100) > 10  # it has moved


@pytest.mark.parametrize("norm", ["", "GN", "BN"])
def test_training(norm):
    """SGD with momentum on both; after some steps they still find the same."""
    batches = [make_batch((6, 3)) for _ in range(2)]
    pair = build_pair(tiny_cfg(NORM=norm), batches[0])
    before = copy.deepcopy(pair.ours.state_dict())
    optimizers = [
        torch.optim.SGD(model.parameters(), lr=3e-4, momentum=0.9)
        for model in (pair.stock, pair.ours)
    ]
    for _ in range(3):
        for batch in batches:
            # once weights differ by their rounding, a ReLU at its edge may fall on either side
            assert_same_step(pair, batch, gradient_tolerance=1e-2)
            for optimizer in optimizers:
                optimizer.step()
    after = pair.ours.state_dict()
    moved = (after["head.cls_score.weight"] - before["head.cls_score.weight"]).norm()
    assert moved > 1e-4 * before["head.cls_score.weight"].norm()
    # the weights are six roundings apart by now, which differ from processor to processor
    assert_same_detections(pair, batches[0], box_tolerance=1e-2)


def test_evaluation_between_steps():
    """An evaluation changes nothing that training sees."""
    batch = make_batch()
    pair = build_pair(tiny_cfg(NORM="BN"), batch)
    assert_same_step(pair, batch)
    assert_same_detections(pair, batch)
    average = pair.ours.normalizer.average.clone()
    assert_same_detections(pair, batch)
    assert torch.equal(average, pair.ours.normalizer.average)
    assert_same_step(pair, batch)
