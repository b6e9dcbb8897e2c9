"""A constant."""

import pytest
import torch

from retina_plugin.modeling.normalizers.fixed_normalizer import FixedNormalizer


def test_is_constant():
    normalizer = FixedNormalizer(value=7)
    assert [normalizer(torch.tensor(p)).item() for p in (0, 1, 1000)] == [7, 7, 7]
    assert normalizer.state_dict() == {}


@pytest.mark.parametrize("value", [0, -1.0])
def test_wrong_value(value):
    with pytest.raises(ValueError, match=f"FixedNormalizer.VALUE.*{value}"):
        FixedNormalizer(value=value)
