"""Fitted anchors meet boxes that the config's miss, also on images that the search never saw."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_anchor_generator
from support.anchor_data import boxes_of_shape, cfg_of_boxes
from support.catalogs import catalogs  # noqa: F401

from retina_plugin.config.config_file import load_config
from retina_plugin.workbench.anchors import coverage_of, fit_anchors
from retina_plugin.workbench.anchors.anchor_set import AnchorSet, product_of
from retina_plugin.workbench.anchors.fitting import Gain
from retina_plugin.workbench.anchors.scaling import best_scale
from retina_plugin.workbench.anchors.verdict import verdict

STRIDES = (8, 16, 32, 64, 128)


@pytest.fixture
def tall():
    """Twelve images of tall boxes, 12 x 60, which anchors of ratio 2 cannot meet."""
    return cfg_of_boxes([boxes_of_shape(12, 60, count=8, seed=i) for i in range(12)])


@pytest.mark.parametrize("per_level", [False, True])
@pytest.mark.parametrize("generator", ["octave", "default"])
def test_planted_shapes_are_found(tall, generator, per_level):
    cover = coverage_of(tall)
    assert cover.missed.mean() > 0.9
    fit = fit_anchors(tall, cover, generator=generator, per_level=per_level, anchors_per_cell=2)
    assert fit.whole.after.missed < 0.1 * fit.whole.before.missed
    assert fit.held_out.after.mean_iou > fit.held_out.before.mean_iou + 0.2
    assert fit.held_out.before.boxes == 48
    assert max(max(level) for level in fit.anchors.aspect_ratios) == pytest.approx(5, rel=0.35)
    assert fit.per_cell == ([9] * 5, [2] * 5)
    assert fit.anchors.generator.lower().startswith(generator)


def test_as_many_anchors_of_the_configs_generator_by_default(tall):
    tall.MODEL.ANCHOR_GENERATOR.NAME = "OctaveAnchorGenerator"
    tall.MODEL.ANCHOR_GENERATOR.SIZES = [[16], [32], [64], [128], [256]]
    tall.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[1.0]]
    fit = fit_anchors(tall, coverage_of(tall))
    assert fit.anchors.generator == "OctaveAnchorGenerator"
    assert fit.per_cell == ([3] * 5, [3] * 5)
    again = fit_anchors(tall, coverage_of(tall))
    assert again == fit


def test_gains_are_those_of_the_config_with_the_overrides(tall):
    cover = coverage_of(tall)
    fit = fit_anchors(tall, cover, anchors_per_cell=1, per_level=True)
    cfg = tall.clone()
    for override in fit.anchors.overrides():
        cfg = load_config("", [override], base=cfg)
    after = coverage_of(cfg)
    assert after.grid.num_anchors == [1] * 5
    assert after.iou.mean() == pytest.approx(fit.whole.after.mean_iou)


def test_one_image_cannot_be_held_out():
    cfg = cfg_of_boxes([boxes_of_shape(20, 20, count=5)])
    assert fit_anchors(cfg, coverage_of(cfg), anchors_per_cell=1).held_out is None


def test_remainders_of_crops_are_not_fitted_to(tall):
    cover = coverage_of(tall)
    cover.seen.visible[::2] = 0.3
    assert fit_anchors(tall, cover, anchors_per_cell=1).whole.before.boxes == 48
    cover.seen.visible[:] = 0.3  # better than nothing
    assert fit_anchors(tall, cover, anchors_per_cell=1).whole.before.boxes == 96


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"generator": "square"}, "octave, default"), ({"anchors_per_cell": 0}, "1 or more")],
)
def test_mistakes_are_named(tall, arguments, message):
    with pytest.raises(ValueError, match=message):
        fit_anchors(tall, coverage_of(tall), **arguments)


def test_a_set_makes_the_anchors_that_its_overrides_make(tall):
    made = AnchorSet.of("OctaveAnchorGenerator", [[x * 2.00049] for x in STRIDES], [[1, 0.5]], 3)
    assert made.sizes[0] == (16,) and made.aspect_ratios == ((0.5, 1),)
    assert all(" " not in x for x in made.overrides())
    cfg = load_config("", made.overrides())
    generator = build_anchor_generator(cfg, [ShapeSpec(stride=s) for s in STRIDES])
    for mine, theirs in zip(made.cells(tall, STRIDES), generator.cell_anchors, strict=True):
        assert torch.equal(mine, theirs)
    sizes, ratios = product_of(mine)
    assert np.allclose(sizes, 256 * 2 ** (np.arange(3) / 3), atol=0.01) and np.allclose(
        ratios, [0.5, 1]
    )
    assert product_of(mine[:5]) is None


def test_anchors_that_are_too_large_are_scaled_down():
    cfg = cfg_of_boxes([boxes_of_shape(18, 18, count=10, seed=i) for i in range(4)])
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[40], [80], [160], [320], [640]]
    cover = coverage_of(cfg)
    scaled = best_scale(cfg, cover)
    assert scaled.factor == 0.5 and scaled.coverage.missed.mean() < 0.2 < cover.missed.mean()
    after = coverage_of(load_config("", [scaled.override], base=cfg))
    assert np.array_equal(after.iou, scaled.coverage.iou)
    found = verdict(cfg, cover)
    assert list(found.fix) == [scaled.override] and "0.5 times the size" in str(found)


def test_anchors_that_fit_are_left_alone():
    cfg = cfg_of_boxes([boxes_of_shape(30, 30, count=10, seed=i) for i in range(4)])
    found = verdict(cfg, coverage_of(cfg))
    assert not found.fix and "nothing to change" in str(found)


def test_a_verdict_on_fitted_anchors_has_their_lines(tall):
    cover = coverage_of(tall)
    fit = fit_anchors(tall, cover, anchors_per_cell=2)
    found = verdict(tall, cover, fit)
    assert list(found.fix) == fit.anchors.overrides()
    assert "Fitted anchors, 2 a cell (the config's: 9)" in str(found)
    assert "fitted to the other half" in str(found) and "worth a try" in str(found)


def test_closer_boxes_are_not_worth_missing_others(tall):
    cover = coverage_of(tall)
    fit = fit_anchors(tall, cover, anchors_per_cell=1)
    a, b = fit.whole.before, fit.whole.after
    worse = Gain(replace(a, missed=0), replace(b, missed=9, mean_iou=a.mean_iou + 0.1))
    closer = Gain(replace(a, missed=0), replace(b, missed=0, mean_iou=a.mean_iou + 0.1))
    assert not verdict(tall, cover, replace(fit, whole=worse)).fix
    assert verdict(tall, cover, replace(fit, whole=closer)).fix


def test_a_verdict_names_tiny_boxes_remainders_and_yardsticks():
    cfg = cfg_of_boxes([boxes_of_shape(5, 5, count=10)])
    cfg.MODEL.RETINANET.ASSIGNER.NAME = "ATSSAssigner"
    cover = coverage_of(cfg)
    cover.seen.visible[0] = 0.1
    text = str(verdict(cfg, cover))
    assert "10 boxes are smaller than a cell" in text and "INPUT.MIN_SIZE_TRAIN" in text
    assert "1 of them are remainders" in text and "only a yardstick" in text
