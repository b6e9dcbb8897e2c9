"""The training loader's mixing and sampling, from the config to the batches."""

import json
from itertools import islice

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data.common import AspectRatioGroupedDataset
from support.block_data import write_blocks
from support.catalogs import catalogs  # noqa: F401 - an autouse fixture

from retina_plugin.config.defaults import add_retina_config
from retina_plugin.data.coco_registration import register_datasets
from retina_plugin.data.train_loader import MixingLoader, build_train_loader, start_at
from retina_plugin.registry import UnknownNameError


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    """Twelve images, three of them of another site; the class of a red block is rare."""
    paths = write_blocks(tmp_path_factory.mktemp("blocks"), "train", 12, size=96)
    content = json.loads(paths.json.read_text())
    for index, image in enumerate(content["images"]):
        image["site"] = "leg" if index % 4 == 0 else "arm"
    rare = content["images"][0]["id"]
    for annotation in content["annotations"]:
        annotation["weight"] = annotation["area"]
        annotation["category_id"] = 1 if annotation["image_id"] == rare else 2
    paths.json.write_text(json.dumps(content))
    return paths


@pytest.fixture
def config(blocks):
    cfg = add_retina_config(get_cfg())
    cfg.MODEL.RETINANET.NUM_CLASSES = None
    cfg.DATASETS.COCO.TRAIN.update({"JSON": str(blocks.json), "IMAGES": str(blocks.images)})
    cfg.INPUT.MIN_SIZE_TRAIN = (64,)
    cfg.INPUT.MIX = CfgNode({})
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = False
    cfg.DATALOADER.GROUP_FIELD = "site"
    cfg.SOLVER.IMS_PER_BATCH = 4
    cfg.SOLVER.MAX_ITER = 6
    cfg.SEED = 3
    register_datasets(cfg)
    return cfg


def drawn(cfg, batches=60, **options):
    torch.manual_seed(0)
    np.random.seed(0)
    loader = build_train_loader(cfg, **options)
    return [sample for batch in islice(loader, batches) for sample in batch]


@pytest.mark.parametrize(("power", "share"), [(0.0, 3 / 12), (1.0, 1 / 2)])
def test_group_balanced(config, power, share):
    config.DATALOADER.SAMPLER_TRAIN = "GroupBalancedSampler"
    config.DATALOADER.GROUP_POWER = power
    samples = drawn(config)
    assert np.mean([x["site"] == "leg" for x in samples]) == pytest.approx(share, abs=0.03)
    assert len({x["image_id"] for x in samples}) == 12
    again = [x["image_id"] for x in drawn(config, 5)]
    assert again == [x["image_id"] for x in samples[:20]]  # SEED


def test_repeat_factor(config):
    """One of twelve images has the rare class: with a threshold of 1/3 it comes twice as often."""
    config.DATALOADER.SAMPLER_TRAIN = "RepeatFactorTrainingSampler"
    config.DATALOADER.REPEAT_THRESHOLD = 4 / 12
    counts = np.bincount([x["image_id"] for x in drawn(config, 65)])
    counts = counts[counts > 0]
    assert counts[0] == pytest.approx(40, abs=1) and counts[1:] == pytest.approx(20, abs=1)


def test_unknown_sampler_lists_the_valid_ones(config):
    config.DATALOADER.SAMPLER_TRAIN = "GroupBalanceSampler"
    with pytest.raises(UnknownNameError, match=r"SAMPLER_TRAIN: .* mean GroupBalancedSampler"):
        build_train_loader(config)


def test_a_field_that_nothing_reads_is_said(config, caplog):
    build_train_loader(config)
    assert "DATALOADER.GROUP_FIELD has no effect" in caplog.text
    config.DATALOADER.SAMPLER_TRAIN = "GroupBalancedSampler"
    config.DATALOADER.GROUP_FIELD = ""
    with pytest.raises(ValueError, match="GROUP_FIELD is empty"):
        build_train_loader(config)


def test_config_without_the_keys_is_detectron2s(config):
    plain = get_cfg()
    plain.DATASETS.TRAIN = config.DATASETS.TRAIN
    plain.SOLVER.IMS_PER_BATCH = 3
    plain.DATALOADER.NUM_WORKERS = 0
    loader = build_train_loader(plain)
    assert isinstance(loader, AspectRatioGroupedDataset)
    assert len(next(iter(loader))) == 3


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [4, 2])
def test_mixes_until_the_closing_phase(config, workers, batch_size):
    """A mosaic is a square of SIZE, a plain image 64 px; two batches of two are one step of 4."""
    config.INPUT.MIX = CfgNode({"MOSAIC_PROB": 1.0, "SIZE": 80, "CLOSE_STEPS": 2})
    config.DATALOADER.NUM_WORKERS = workers
    loader = build_train_loader(config, batch_size=batch_size)
    assert isinstance(loader, MixingLoader)
    start_at(loader, 2)  # as if resumed
    per_step = 4 // batch_size
    sides = [x["image"].shape[1] for b in islice(loader, 4 * per_step) for x in b]
    assert sides == [80] * 8 + [64] * 8


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_numbers_of_annotations_stay_with_their_objects(config, probability):
    """The json's weight is the area of the object; mosaics of unscaled images cut some off."""
    mix = {"MOSAIC_PROB": probability, "SIZE": 192, "MOSAIC_SCALE": [1.0, 1.0], "MIN_VISIBLE": 1.0}
    config.INPUT.MIX = CfgNode(mix)
    config.INPUT.MIN_SIZE_TRAIN = (96,)
    config.DATASETS.COCO.EXTRA_ANNOTATION_KEYS = ["weight"]
    config.DATASETS.COCO.TRAIN.NAME = "weighted"
    config.DATASETS.TRAIN = ()
    register_datasets(config)
    for sample in drawn(config, 3):
        instances = sample["instances"]
        assert torch.equal(instances.gt_weight, instances.gt_boxes.area())


def test_mixes_with_grouping_by_aspect_ratio(config):
    config.INPUT.MIX = CfgNode({"MOSAIC_PROB": 1.0, "SIZE": 80})
    config.DATALOADER.ASPECT_RATIO_GROUPING = True
    samples = drawn(config, 3)
    assert {x["image"].shape for x in samples} == {(3, 80, 80)} and len(samples) == 12


def test_closing_longer_than_the_training_is_said(config, caplog):
    config.INPUT.MIX = CfgNode({"MIXUP_PROB": 1.0, "CLOSE_STEPS": 6})
    assert {len(x["instances"]) for x in drawn(config, 3)} <= {1, 2, 3}
    assert "CLOSE_STEPS is 6 of SOLVER.MAX_ITER 6: no image is mixed" in caplog.text


def test_other_loaders_need_no_start():
    start_at([1, 2], 5)


# ---- tiles of 96 px images


@pytest.fixture
def tiled(config):
    config.INPUT.TILES.TRAIN_SIZE = 32
    config.INPUT.MIN_SIZE_TRAIN = (0,)
    config.INPUT.IGNORE_CROWD = True
    config.INPUT.RANDOM_FLIP = "none"
    config.DATALOADER.GROUP_FIELD = ""
    return config


def test_an_epoch_sees_every_tile_once(tiled):
    tiled.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    samples = drawn(tiled, 27)
    assert {x["image"].shape for x in samples} == {(3, 32, 32)}
    assert len({(x["image_id"], x["tile"]) for x in samples}) == len(samples) == 12 * 9
    images = [x["image_id"] for x in samples]
    assert len(set(images[: 4 * 9])) == 4  # INPUT.TILES.CACHE
    assert sum(len(x["ignored_boxes"]) for x in samples) > 0


def test_tiles_without_objects_are_left_out(tiled):
    samples = drawn(tiled, 27)
    assert len({(x["image_id"], x["tile"]) for x in samples}) < 80
    assert all((x["instances"].gt_boxes.area() > 0).any() for x in samples)


def test_tiles_from_the_workers_of_a_loader(tiled):
    tiled.DATALOADER.NUM_WORKERS = 2
    tiled.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    samples = drawn(tiled, 27)
    assert len({(x["image_id"], x["tile"]) for x in samples}) == 12 * 9


@pytest.mark.parametrize("sampler", ["GroupBalancedSampler", "RepeatFactorTrainingSampler"])
def test_tiles_with_other_samplers(tiled, sampler, caplog):
    tiled.DATALOADER.SAMPLER_TRAIN = sampler
    tiled.DATALOADER.GROUP_FIELD = "site" if sampler == "GroupBalancedSampler" else ""
    samples = drawn(tiled, 60)
    assert {x["image"].shape for x in samples} == {(3, 32, 32)}
    if sampler == "GroupBalancedSampler":
        assert np.mean([x["site"] == "leg" for x in samples]) == pytest.approx(0.5, abs=0.06)
    assert "tiles of one image do not follow each other" in caplog.text


def test_tiles_are_mixed(tiled, caplog):
    tiled.INPUT.MIX = CfgNode({"MOSAIC_PROB": 1.0, "SIZE": 48})
    assert {x["image"].shape for x in drawn(tiled, 5)} == {(3, 48, 48)}
    assert "is decoded again, whole, for each tile" in caplog.text


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("INPUT.TILES.TRAIN_OVERLAP", 32, r"TRAIN_OVERLAP .* less than TRAIN_SIZE 32, got 32"),
        ("MODEL.MASK_ON", True, r"does not go with MODEL.MASK_ON True: change"),
        (
            "DATALOADER.SAMPLER_TRAIN",
            "WeightedTrainingSampler",
            r"go with DATALOADER.SAMPLER_TRAIN",
        ),
        ("INPUT.TILES.CACHE", 0, r"CACHE must be 1 or more decoded images, got 0"),
    ],
)
def test_tiles_refuse(tiled, key, value, message):
    tiled.merge_from_list([key, value])
    with pytest.raises(ValueError, match=message):
        build_train_loader(tiled)
