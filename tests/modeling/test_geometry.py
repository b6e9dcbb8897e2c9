"""Centreness by hand."""

import pytest
import torch

from retina_plugin.modeling.geometry import centreness

BOX = [[0.0, 0.0, 40.0, 20.0]]


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (20, 10, 1.0),
        (10, 10, (1 / 3) ** 0.5),
        (10, 5, 1 / 3),
        (0, 10, 0.0),  # on the edge
        (50, 10, 0.0),
        (-5, -5, 0.0),  # outside both ways: two negative ratios are no positive one
    ],
)
def test_centreness(x, y, expected):
    anchor = torch.tensor([[x - 3.0, y - 7.0, x + 3.0, y + 7.0]])
    assert centreness(anchor, torch.tensor(BOX)).item() == pytest.approx(expected)


def test_of_a_box_without_area_and_of_none():
    assert centreness(torch.ones(1, 4), torch.ones(1, 4)).item() == 0
    assert centreness(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0,)
