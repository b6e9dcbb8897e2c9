"""The mapper of several images: what it mixes, from which records, and until when."""

import copy
import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data.build import build_batch_data_loader
from detectron2.data.common import MapDataset
from detectron2.data.samplers import TrainingSampler
from support.mixed_data import mapped, same_records
from torch.utils.data import IterableDataset

from retina_plugin import add_retina_config
from retina_plugin.data import mixing
from retina_plugin.data.mixing import Mix, MixingMapper
from retina_plugin.registry import UnknownNameError

BOXES = [[4, 6, 20, 18], [30, 10, 50, 40]]


@pytest.fixture(autouse=True)
def _numpy_seed():
    np.random.seed(0)


def to_image(number):
    """A mapper whose records are numbers."""
    return mapped(BOXES, image_id=number)


def sources(sample):
    """The ids of the images whose objects a sample has."""
    return Counter(int(name.split(".")[0]) for name in sample["instances"].gt_name)


def mixed(mix, count=40, **options):
    mapper = MixingMapper(to_image, mix=mix, **options)
    return [mapper(number) for number in range(count)]


def test_off_is_the_mapper_alone():
    state = np.random.get_state()[1].copy()
    for number, sample in enumerate(mixed(Mix(), 5)):
        assert same_records(sample, to_image(number))
    assert np.array_equal(state, np.random.get_state()[1])  # drew no number


@pytest.mark.parametrize(
    ("mix", "images"),
    [
        (Mix(mosaic_prob=1.0, mosaic_scale=(0.2, 0.2)), 4),
        (Mix(mixup_prob=1.0, min_visible=0.0), 2),
        (Mix(copy_paste_prob=1.0, copy_paste_share=1.0, min_visible=0.0), 2),
    ],
)
def test_objects_are_of_so_many_images(mix, images):
    results = mixed(mix)
    assert {image for sample in results for image in sources(sample)} == set(range(40))
    for number, sample in enumerate(results):
        assert sample["image_id"] == number
        assert len(sources(sample)) <= images
        assert max(sources(sample)) <= number  # from records that came before
    assert max(len(sources(sample)) for sample in results) == images


def test_defaults_of_the_config():
    assert Mix.from_config(add_retina_config(get_cfg())) == Mix(mosaic_scale=[0.5, 1.0])


def test_share_of_mixed_images():
    mix = Mix(mixup_prob=0.3)  # of two images with two objects each
    blended = [len(x["instances"]) == 4 for x in mixed(mix, 300)]
    assert np.mean(blended) == pytest.approx(0.3, abs=0.08)


def test_all_at_once_is_deterministic():
    mix = Mix(mosaic_prob=0.5, mixup_prob=0.5, copy_paste_prob=0.5)
    results = []
    for seed in (1, 1, 2):
        np.random.seed(seed)
        results.append(mixed(mix, 20))
    assert all(map(same_records, results[0], results[1]))
    assert not all(map(same_records, results[0], results[2]))


def test_pool_forgets(monkeypatch):
    monkeypatch.setattr(mixing, "POOL", 3)
    for number, sample in enumerate(mixed(Mix(mixup_prob=1.0), 40)):
        assert min(sources(sample)) >= number - 2


def test_records_that_a_mapper_skips():
    def even_only(number):
        return None if number % 2 else to_image(number)

    mapper = MixingMapper(even_only, mix=Mix(mosaic_prob=0.5, mixup_prob=1.0, copy_paste_prob=0.5))
    results = [mapper(number) for number in range(40)]
    assert all((sample is None) == bool(number % 2) for number, sample in enumerate(results))
    assert all(image % 2 == 0 for sample in results if sample for image in sources(sample))


# ---- the closing phase


def is_plain(sample):
    return same_records(sample, to_image(sample["image_id"]))


class Numbers(IterableDataset):
    """0, 1, 2, ...; each worker process its own share, as such data sets must."""

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        number = worker.id if worker else 0
        while True:
            yield number
            number += worker.num_workers if worker else 1


def loader_of(mapper, *, kind="map", batch=3, workers=0, seed=0):
    torch.manual_seed(seed)
    np.random.seed(seed)
    if kind == "iterable":
        dataset, sampler = MapDataset(Numbers(), mapper), None
    else:
        dataset, sampler = MapDataset(list(range(50)), mapper), TrainingSampler(50, seed=seed)
    return build_batch_data_loader(
        dataset, sampler, batch, num_workers=workers, aspect_ratio_grouping=False
    )


@pytest.mark.parametrize("kind", ["map", "iterable"])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batches_a_step", [1, 2])
def test_closing_begins_exactly_at_its_step(kind, workers, batches_a_step):
    """Whatever the workers fetch ahead, and with several batches a step."""
    start, first_plain = 100, 104
    mapper = MixingMapper(
        to_image,
        mix=Mix(mixup_prob=1.0, mosaic_prob=1.0),
        last_step=first_plain,
        images_per_step=3 * batches_a_step,
        images_per_chunk=3,
    )
    mapper.start_at(start)
    batches = iter(loader_of(mapper, kind=kind, workers=workers))
    for step in range(start, start + 7):
        for _ in range(batches_a_step):
            plain = [is_plain(sample) for sample in next(batches)]
            assert plain == [step >= first_plain] * 3, step


def test_resumed_within_the_closing_phase():
    mapper = MixingMapper(to_image, mix=Mix(mosaic_prob=1.0), last_step=5)
    mapper.start_at(5)
    assert is_plain(mapper(0))
    mapper.start_at(4)
    assert not is_plain(mapper(1)) and is_plain(mapper(2))


def test_without_a_closing_phase():
    assert not any(map(is_plain, mixed(Mix(mosaic_prob=1.0), 40)))


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_is_deterministic_by_its_seed(workers):
    mix = Mix(mosaic_prob=0.5, mixup_prob=0.5)
    streams = []
    for seed in (1, 1, 2):
        loader = iter(loader_of(MixingMapper(to_image, mix=mix), workers=workers, seed=seed))
        streams.append([sample for _ in range(4) for sample in next(loader)])
    assert all(map(same_records, streams[0], streams[1]))
    assert not all(map(same_records, streams[0], streams[2]))


def test_worker_processes_differ():
    mapper = MixingMapper(to_image, mix=Mix(mosaic_prob=1.0))
    batches = iter(loader_of(mapper, workers=2, batch=1))
    first, second = [next(batches)[0]["image"] for _ in range(2)]
    assert not torch.equal(first, second)


def test_goes_to_a_worker_process():
    mapper = MixingMapper(to_image, mix=Mix(mosaic_prob=1.0), last_step=1)
    again = pickle.loads(pickle.dumps(mapper))
    assert not is_plain(again(0)) and is_plain(again(1))


# ---- from the config


def config(**keys):
    cfg = get_cfg()
    cfg.INPUT.MIX = CfgNode(keys)
    return cfg


def test_keys_reach_the_mix():
    assert Mix.from_config(get_cfg()) == Mix() and not Mix().is_on
    mix = Mix.from_config(config(MOSAIC_PROB=0.5, MOSAIC_SCALE=[0.3, 0.9], CLOSE_STEPS=7))
    assert mix == Mix(mosaic_prob=0.5, mosaic_scale=[0.3, 0.9], close_steps=7) and mix.is_on


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"MIXUP_PROB": 1.5}, r"INPUT\.MIX\.MIXUP_PROB must be a chance from 0 to 1, got 1\.5"),
        ({"MOSAIC_PROB": "half"}, r"INPUT\.MIX\.MOSAIC_PROB must be a chance .* got 'half'"),
        ({"SIZE": -1}, r"INPUT\.MIX\.SIZE must be a whole number, 0 or more, got -1"),
        ({"CLOSE_STEPS": 0.5}, r"INPUT\.MIX\.CLOSE_STEPS must be a whole number"),
        ({"MOSAIC_SCALE": [1.0, 0.5]}, r"INPUT\.MIX\.MOSAIC_SCALE must be two positive numbers"),
        ({"MOSAIC_SCALE": 1.0}, r"INPUT\.MIX\.MOSAIC_SCALE must be two positive numbers"),
        ({"MIXUP_ALPHA": 0}, r"INPUT\.MIX\.MIXUP_ALPHA must be a number above 0"),
        ({"MIN_VISIBLE": 2}, r"INPUT\.MIX\.MIN_VISIBLE must be a share from 0 to 1, got 2"),
        ({"COPY_PASTE_SHARE": -1}, r"INPUT\.MIX\.COPY_PASTE_SHARE must be a chance"),
    ],
)
def test_wrong_values_name_their_key(keys, message):
    with pytest.raises(ValueError, match=message):
        Mix.from_config(config(**keys))


def test_unknown_key_lists_the_valid_ones():
    with pytest.raises(UnknownNameError, match=r"INPUT\.MIX: 'MIXUP_PROP' .* MIXUP_PROB"):
        Mix.from_config(config(MIXUP_PROP=1.0))


def test_copies_are_not_needed():
    """A record is drawn again and again: the mapper gets the very same one."""
    records = [{"number": x} for x in range(5)]
    before = copy.deepcopy(records)
    mapper = MixingMapper(lambda record: to_image(record["number"]), mix=Mix(mosaic_prob=1.0))
    for record in records * 3:
        mapper(record)
    assert records == before
