"""The search computes the same IoUs as the coverage, and only ever climbs."""

import numpy as np
import pytest
import torch
from support.tiny_models import tiny_focal_cfg

from retina_plugin.workbench.anchors.anchor_grid import anchor_grid
from retina_plugin.workbench.anchors.anchor_set import product_of
from retina_plugin.workbench.anchors.pattern_search import (
    Boxes,
    Shape,
    climb,
    score,
    search_levels,
    search_shared,
)


@pytest.fixture
def grid():
    return anchor_grid(tiny_focal_cfg())


@pytest.fixture
def given():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 300, (200, 2))
    boxes = np.concatenate([corner, corner + np.exp(rng.uniform(1.5, 5, (200, 2)))], axis=1)
    return boxes.astype(np.float32), np.full((200, 2), 480)


def test_ious_are_those_of_the_coverage(grid, given):
    boxes, sizes = given
    reduced = Boxes.of(boxes, sizes, grid)
    found = [reduced.best(level, *product_of(cells)) for level, cells in enumerate(grid.cells)]
    iou, _ = grid.best(torch.from_numpy(boxes), sizes)
    np.testing.assert_allclose(np.max(found, axis=0), iou, atol=2e-4)  # sizes are rounded there


@pytest.mark.parametrize("is_octave", [True, False])
def test_a_search_never_gets_worse(grid, given, is_octave):
    boxes = Boxes.of(*given, grid)
    shape = Shape(2, 2, is_octave)
    start = np.log([3.0, 0.7, 1.3] if is_octave else [3.0, 4.2, 0.7, 1.3])
    sizes, ratios = shape.values(start)
    levels = [boxes.best(i, sizes * s, ratios) for i, s in enumerate(grid.strides)]
    before = score(np.max(levels, axis=0), 0.5)
    shared, x = search_shared(boxes, shape, start, 0.5)
    apart, each = search_levels(boxes, shape, x, 0.5)
    assert before < shared <= apart
    assert len(each) == 5 and any(not np.array_equal(each[0], y) for y in each[1:])


def test_sizes_stay_within_what_a_level_sees():
    shape = Shape(3, 1, True)
    sizes, ratios = shape.values(shape.clip(np.log([100.0, 50.0])))
    assert sizes.max() == pytest.approx(8) and ratios == pytest.approx(8)
    shape = Shape(2, 1, False)
    sizes, ratios = shape.values(shape.clip(np.log([0.1, 100.0, 0.01])))
    assert sizes == pytest.approx([1, 8]) and ratios == pytest.approx(0.125)


def test_climbing_finds_the_top():
    top = np.array([0.3, 1.7, -0.4])
    value, x = climb(lambda x: -float(((x - top) ** 2).sum()), np.zeros(3), Shape(2, 1, False))
    assert np.abs(x - top).max() < 0.02 and value > -1e-3
