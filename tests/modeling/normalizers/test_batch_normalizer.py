"""The positives of the batch."""

import pytest
import torch

from retina_plugin.modeling.normalizers.batch_normalizer import BatchNormalizer


@pytest.mark.parametrize(("positives", "expected"), [(0, 1), (1, 1), (2, 2), (12345, 12345)])
def test_counts(positives, expected):
    value = BatchNormalizer()(torch.tensor(positives))
    assert value.dtype == torch.float32
    assert value.shape == ()
    assert value == expected


def test_remembers_nothing():
    normalizer = BatchNormalizer()
    normalizer(torch.tensor(1000))
    assert normalizer(torch.tensor(3)) == 3
    assert normalizer.state_dict() == {}
