"""Small groups of images come as often as their power says."""

from collections import Counter
from itertools import islice

import pytest
from detectron2.data.common import ToIterableDataset
from detectron2.data.samplers import TrainingSampler
from torch.utils.data import DataLoader

from retina_plugin.data.samplers import (
    GroupBalancedSampler,
    NearbyTilesSampler,
    balancing_factors,
    groups_of,
)

GROUPS = ["a"] * 80 + ["b"] * 16 + ["c"] * 4


def shares(power, count=6000):
    sampler = GroupBalancedSampler(GROUPS, power=power, seed=1)
    drawn = Counter(GROUPS[index] for index in islice(sampler, count))
    return [drawn[group] / count for group in "abc"]


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_shares_of_groups(power):
    sizes = [n ** (1 - power) for n in (80, 16, 4)]
    expected = [n / sum(sizes) for n in sizes]
    assert shares(power) == pytest.approx(expected, abs=0.02)


def test_factors_by_hand():
    factors = balancing_factors(["x", "y", "x", "x", "x"], power=0.5)
    assert factors.tolist() == [1, 2, 1, 1, 1]
    assert balancing_factors([1, 1, True, 2], power=1.0).tolist() == [1, 1, 1, 3]


def test_without_power_each_image_once_an_epoch():
    stream = list(islice(GroupBalancedSampler(GROUPS, power=0.0, seed=5), 300))
    for epoch in range(3):
        assert sorted(stream[epoch * 100 : epoch * 100 + 100]) == list(range(100))
    assert stream[:100] != stream[100:200]
    # to the very stream: both shuffle with one generator, which this one also asks for fractions
    assert len(set(islice(TrainingSampler(100, seed=5), 100))) == 100


def test_every_image_comes_in_every_epoch():
    factors = balancing_factors(GROUPS, power=1.0)
    epoch = 3 * 80
    assert factors.sum() == epoch
    assert set(islice(GroupBalancedSampler(GROUPS, seed=3), epoch)) == set(range(100))


def test_seeded():
    first, again, other = (
        list(islice(GroupBalancedSampler(GROUPS, power=0.7, seed=seed), 500)) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_gpus_share_the_stream():
    whole = list(islice(GroupBalancedSampler(GROUPS, seed=1), 600))
    for rank in range(3):
        sampler = GroupBalancedSampler(GROUPS, seed=1)
        sampler._rank, sampler._world_size = rank, 3
        assert list(islice(sampler, 200)) == whole[rank::3]


def test_worker_processes_share_the_stream():
    stream = ToIterableDataset(range(100), GroupBalancedSampler(GROUPS, seed=1), shard_chunk_size=4)
    loader = iter(DataLoader(stream, batch_size=4, num_workers=2, collate_fn=list))
    drawn = [index for _ in range(10) for index in next(loader)]
    assert drawn == list(islice(GroupBalancedSampler(GROUPS, seed=1), 40))


@pytest.mark.parametrize("power", [-0.1, 1.5])
def test_wrong_power(power):
    with pytest.raises(ValueError, match=rf"DATALOADER.GROUP_POWER must be .* got {power}"):
        GroupBalancedSampler(GROUPS, power=power, seed=0)


def test_no_images():
    with pytest.raises(ValueError, match="no images"):
        balancing_factors([], power=1.0)


def test_groups_of_records():
    records = [{"site": "arm"}, {"site": 3}]
    assert groups_of(records, "site") == ["arm", 3]
    with pytest.raises(ValueError, match=r"DATALOADER.GROUP_FIELD is empty"):
        groups_of(records, "")
    for record in ({}, {"site": None}, {"site": ["arm"]}):
        record.update(image_id=7, file_name="x.png")
        with pytest.raises(ValueError, match=r"image 7 \(x.png\) must have 'site', a text"):
            groups_of([*records, record], "site")


TILES = ["a"] * 30 + ["b"] * 5 + ["c"] * 17 + ["d"] + ["e"] * 20  # the images of 73 tiles


@pytest.mark.parametrize("together", [1, 2, 5, 9])
def test_nearby_tiles(together):
    """Each tile once an epoch; an image that was left does not come again in it."""
    sampler = NearbyTilesSampler(TILES, together=together, seed=2)
    stream = list(islice(sampler, 3 * 73))
    orders = []
    for epoch in range(3):
        tiles = stream[epoch * 73 : epoch * 73 + 73]
        assert sorted(tiles) == list(range(73))
        images = [TILES[tile] for tile in tiles]
        first = {image: images.index(image) for image in TILES}
        last = {image: 72 - images[::-1].index(image) for image in TILES}
        open_at_once = [sum(first[x] <= i <= last[x] for x in first) for i in range(73)]
        assert max(open_at_once) <= together
        orders.append(tiles)
    assert orders[0] != orders[1] != orders[2]


def test_nearby_tiles_are_mixed_within_their_images():
    drawn = [TILES[t] for t in islice(NearbyTilesSampler(TILES, together=5, seed=0), 20)]
    assert len(set(drawn)) >= 3


def test_gpus_and_worker_processes_share_nearby_tiles():
    whole = list(islice(NearbyTilesSampler(TILES, together=2, seed=1), 150))
    for rank in range(2):
        sampler = NearbyTilesSampler(TILES, together=2, seed=1)
        sampler._rank, sampler._world_size = rank, 2
        assert list(islice(sampler, 60)) == whole[rank:120:2]
    sampler = NearbyTilesSampler(TILES, together=2, seed=1)
    stream = ToIterableDataset(range(73), sampler, shard_chunk_size=3)
    loader = iter(DataLoader(stream, batch_size=3, num_workers=2, collate_fn=list))
    assert [index for _ in range(20) for index in next(loader)] == whole[:60]
