"""Two workers that share their counts divide as one worker with the whole batch would."""

import pytest
import torch
from support.workers import on_workers

from retina_plugin.modeling.normalizers.batch_normalizer import BatchNormalizer
from retina_plugin.modeling.normalizers.ema_normalizer import EMANormalizer

# positives of each worker, step by step; with none or one in all, the lower bound of 1 applies
STEPS = [(30, 0), (1, 0), (0, 0), (500, 700)]


def normalizers_of_each_step(rank, shared):
    """Three normalizers' answers to :data:`STEPS` on this worker, and what the average ends at."""
    batch = BatchNormalizer(average_over_workers=shared)
    ema = EMANormalizer(average_over_workers=shared)
    counts = [torch.tensor(step[rank]) for step in STEPS]
    values = [(batch(count).item(), ema(count).item()) for count in counts]
    return values, ema.average.item(), [count.item() for count in counts]


def gradient_scales(rank):
    shared = normalizers_of_each_step(rank, True)
    alone = normalizers_of_each_step(rank, False)
    return shared, alone


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    return on_workers(2, tmp_path_factory.mktemp("workers"), gradient_scales)


def one_worker_with_the_whole_batch():
    batch, ema = BatchNormalizer(), EMANormalizer()
    totals = [torch.tensor(sum(step)) for step in STEPS]
    return [(batch(p).item(), ema(p).item()) for p in totals], ema.average.item()


def test_gradients_are_those_of_one_worker(workers):
    """DistributedDataParallel means the workers' gradients: ``(g_0 / n_0 + g_1 / n_1) / 2``.

    That is ``(g_0 + g_1) / n`` for all gradients only where ``2 n_0 = 2 n_1 = n``.
    """
    expected, _ = one_worker_with_the_whole_batch()
    for shared, _ in workers:
        for found, wanted in zip(shared[0], expected, strict=True):
            assert [2 * value for value in found] == pytest.approx(wanted)


def test_the_average_is_the_same_whatever_the_number_of_workers(workers):
    """So a checkpoint goes on with another number of them."""
    _, expected = one_worker_with_the_whole_batch()
    for shared, _ in workers:
        assert shared[1] == pytest.approx(expected)


def test_without_sharing_each_worker_counts_its_own(workers):
    """As Detectron2 does."""
    for rank, (_, alone) in enumerate(workers):
        batch = [values[0] for values in alone[0]]
        assert batch == [max(step[rank], 1) for step in STEPS]


def test_the_count_itself_stays(workers):
    """The reduction over the workers works on a copy."""
    for rank, (shared, _) in enumerate(workers):
        assert shared[2] == [step[rank] for step in STEPS]
