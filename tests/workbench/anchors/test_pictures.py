"""Pictures show each object once, in the colour of whether an anchor reaches it."""

import numpy as np
import pytest
from PIL import Image, ImageColor
from support.block_data import as_overrides, write_blocks
from support.catalogs import catalogs  # noqa: F401
from support.tiny_models import tiny_focal_cfg

from retina_plugin.data.coco_registration import register_datasets
from retina_plugin.workbench.anchors import coverage_of
from retina_plugin.workbench.anchors.pictures import LEVEL_COLOURS, draw_pictures


@pytest.fixture
def cfg(tmp_path):
    paths = write_blocks(tmp_path, "train", 3)
    cfg = tiny_focal_cfg()
    cfg.MODEL.RETINANET.NUM_CLASSES = 3
    cfg.merge_from_list(as_overrides(paths, paths))
    cfg.INPUT.MIN_SIZE_TRAIN = (96,)
    cfg.INPUT.MIN_SIZE_TEST = 96
    register_datasets(cfg)
    return cfg


def has(path, colour):
    """Whether so strong a colour is in the first panel, where no anchor is drawn."""
    pixels = np.asarray(Image.open(path))[40:380, :380]
    return bool((pixels == ImageColor.getrgb(colour)).all(axis=2).any())


@pytest.mark.parametrize("split", ["train", "test"])
def test_reached_and_missed_objects_have_their_colours(cfg, tmp_path, split):
    cover = coverage_of(cfg, split)
    before = np.random.get_state()[1].copy()
    files = draw_pictures(cfg, cover, tmp_path / "made" / split, split=split, count=9)
    assert np.array_equal(np.random.get_state()[1], before)
    assert len(files) == 3 and all(path.parent.name == split for path in files)
    for path in files:
        record = next(r for r in cover.seen.records if path.stem.endswith(f"_{r['image_id'] - 1}"))
        rows = cover.seen.record == list(cover.seen.records).index(record)
        assert has(path, "lime") == bool((~cover.missed[rows]).any())
        assert has(path, "red") == bool(cover.missed[rows].any())
    width, height = Image.open(files[0]).size
    assert width == 3 * 384 + 2 * 6 and height > 384


def test_the_worst_image_is_first(cfg, tmp_path):
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[40], [80], [160], [320], [640]]
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[1.0]]
    cover = coverage_of(cfg, "test")
    missed = np.bincount(cover.seen.record, weights=cover.missed)
    (path,) = draw_pictures(cfg, cover, tmp_path / "made", split="test", count=1)
    worst = cover.seen.records[int(missed.argmax())]
    assert path.name == f"01_{worst['image_id'] - 1}.png" and missed.max() > missed.min()


@pytest.mark.parametrize("name", ["ATSSAssigner", "TaskAlignedAssigner", "SimOTAAssigner"])
def test_every_assigner_has_pictures(cfg, tmp_path, name):
    cfg.MODEL.RETINANET.ASSIGNER.NAME = name
    cover = coverage_of(cfg, "test")
    (path,) = draw_pictures(cfg, cover, tmp_path / "made", split="test", count=1)
    pixels = np.asarray(Image.open(path))
    orange = ImageColor.getrgb(LEVEL_COLOURS[0])
    assert (pixels[-200:] == orange).all(axis=2).any()  # in the legend: some learn on p3


def test_none_are_drawn_where_none_are_asked_for(cfg, tmp_path):
    folder = tmp_path / "made"
    assert draw_pictures(cfg, coverage_of(cfg), folder, split="train", count=0) == []
    assert not folder.exists()
