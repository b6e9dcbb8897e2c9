"""Micro-batches, each divided and then rescaled, add up to the large batch's quotient."""

import pytest
import torch

from retina_plugin.modeling.normalizers.accumulated_normalizer import AccumulatedNormalizer
from retina_plugin.modeling.normalizers.batch_normalizer import BatchNormalizer
from retina_plugin.modeling.normalizers.ema_normalizer import EMANormalizer
from retina_plugin.modeling.normalizers.fixed_normalizer import FixedNormalizer


@pytest.mark.parametrize("kind", [BatchNormalizer, EMANormalizer, FixedNormalizer])
@pytest.mark.parametrize("counts", [(5,), (3, 900), (0, 0, 7), (0, 0), (1.5, 0.25, 4.0)])
def test_the_sum_is_divided_by_the_normalizer_of_all(kind, counts):
    sums = [10.0 + i for i in range(len(counts))]
    whole, normalizer = kind(), kind()
    expected = sum(sums) / whole(torch.tensor(sum(counts)))
    shared = AccumulatedNormalizer(normalizer, len(counts))
    found = torch.tensor(0.0)
    for loss, count in zip(sums, counts, strict=True):
        divisor = shared(torch.tensor(count))
        if shared.rescale is not None:
            found = found * shared.rescale
        found = found + loss / divisor
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    assert normalizer.state_dict() == whole.state_dict()  # an average was updated once


def test_no_part_is_off_by_magnitudes():
    """Half precision: a part's gradients are of the size that they have in the end."""
    shared = AccumulatedNormalizer(BatchNormalizer(), 3)
    divisors = [shared(torch.tensor(count)).item() for count in (100, 120, 80)]
    assert divisors == [100, 220, 300]


def test_more_parts_than_said():
    shared = AccumulatedNormalizer(BatchNormalizer(), 1)
    shared(torch.tensor(1))
    with pytest.raises(AssertionError):
        shared(torch.tensor(1))
