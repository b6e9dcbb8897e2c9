"""Octave anchors against Detectron2's generator, and by their areas and ratios."""

import math

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_anchor_generator
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from support.tiny_models import zoo_cfg

from retina_plugin import add_retina_config
from retina_plugin.modeling.anchors.octave_anchor_generator import OctaveAnchorGenerator
from retina_plugin.registry import UnknownNameError

STRIDES = [8, 16, 32, 64, 128]
BASES = [[32], [64], [128], [256], [512]]
LEVELS = [ShapeSpec(channels=8, stride=stride) for stride in STRIDES]


def feature_maps():
    return [torch.zeros(1, 1, 256 // stride, 384 // stride) for stride in STRIDES]


def octave_cfg(extended=True):
    cfg = get_cfg()
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "OctaveAnchorGenerator"
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = BASES
    return add_retina_config(cfg) if extended else cfg


def same_anchors(ours, theirs):
    for a, b in zip(ours(feature_maps()), theirs(feature_maps()), strict=True):
        torch.testing.assert_close(a.tensor, b.tensor)


@pytest.mark.parametrize("extended", [True, False])
def test_equals_the_model_zoo(extended):
    """The zoo's config spells three scales of five octaves out, through ``eval``."""
    theirs = build_anchor_generator(zoo_cfg(50), LEVELS)
    ours = build_anchor_generator(octave_cfg(extended), LEVELS)
    assert type(ours) is OctaveAnchorGenerator
    assert ours.num_anchors == theirs.num_anchors == [9] * 5
    same_anchors(ours, theirs)


@pytest.mark.parametrize("offset", [0.0, 0.5])
@pytest.mark.parametrize("scales", [1, 2, 4])
def test_equals_spelt_out_sizes(scales, offset):
    ratios = [0.5, 1.0, 3.0]
    ours = OctaveAnchorGenerator(
        base_sizes=BASES,
        scales_per_octave=scales,
        aspect_ratios=ratios,
        strides=STRIDES,
        offset=offset,
    )
    theirs = DefaultAnchorGenerator(
        sizes=[[base * 2 ** (i / scales) for i in range(scales)] for (base,) in BASES],
        aspect_ratios=[ratios],
        strides=STRIDES,
        offset=offset,
    )
    same_anchors(ours, theirs)


def test_areas_and_ratios():
    generator = OctaveAnchorGenerator(base_sizes=[[20]], strides=[8])
    x0, y0, x1, y1 = next(iter(generator.cell_anchors)).unbind(1)
    width, height = x1 - x0, y1 - y0
    sizes = (width * height).sqrt().view(3, 3)
    for i in range(3):
        torch.testing.assert_close(sizes[i], torch.full((3,), 20 * 2 ** (i / 3)))
    torch.testing.assert_close((height / width).view(3, 3), torch.tensor([[0.5, 1.0, 2.0]] * 3))
    torch.testing.assert_close(x0 + x1, torch.zeros(9))


def test_levels_may_differ():
    generator = OctaveAnchorGenerator(
        base_sizes=[[16, 32], [64], [128]],
        scales_per_octave=[3, 2, 1],
        aspect_ratios=[[1.0], [0.5, 1.0, 2.0], [1.0]],
        strides=[8, 16, 32],
    )
    assert generator.num_anchors == [6, 6, 1]
    maps = feature_maps()[:3]
    expected = [a * x.shape[2] * x.shape[3] for a, x in zip([6, 6, 1], maps, strict=True)]
    assert [len(boxes) for boxes in generator(maps)] == expected


@pytest.mark.parametrize("base_sizes", [[32], [[32]]])
def test_one_list_serves_all_levels(base_sizes):
    generator = OctaveAnchorGenerator(base_sizes=base_sizes, strides=STRIDES)
    assert generator.num_anchors == [9] * 5


def test_several_octaves_on_a_level():
    generator = OctaveAnchorGenerator(
        base_sizes=[[16, 32, 64]], scales_per_octave=2, aspect_ratios=[1.0], strides=[8]
    )
    widths = next(iter(generator.cell_anchors))[:, 2] * 2
    expected = [16 * math.sqrt(2) ** i for i in range(6)]
    torch.testing.assert_close(widths, torch.tensor(expected))


@pytest.mark.parametrize("value", ["2", "[3, 3, 2, 1, 1]"])
def test_scales_from_a_command_line(value):
    """One number for all levels, or one for each."""
    cfg = octave_cfg()
    cfg.merge_from_list(["MODEL.ANCHOR_GENERATOR.OctaveAnchorGenerator.SCALES_PER_OCTAVE", value])
    counts = build_anchor_generator(cfg, LEVELS).num_anchors
    assert counts == ([6] * 5 if value == "2" else [9, 9, 6, 3, 3])


def test_a_misspelt_setting_is_an_error():
    cfg = octave_cfg()
    cfg.MODEL.ANCHOR_GENERATOR.OctaveAnchorGenerator.SCALES_PER_OCTAV = 2
    with pytest.raises(UnknownNameError, match=r"SCALES_PER_OCTAV.*Did you mean SCALES_PER_OCTAVE"):
        build_anchor_generator(cfg, LEVELS)


def test_sizes_that_spell_the_octave_out_are_an_error():
    """Stock's sizes would be multiplied once more: 27 anchors where nine were meant."""
    cfg = zoo_cfg(50)
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "OctaveAnchorGenerator"
    with pytest.raises(ValueError, match=r"SIZES of level 0.*within one octave.*set SCALES_PER"):
        build_anchor_generator(cfg, LEVELS)
    cfg = add_retina_config(cfg)
    cfg.MODEL.ANCHOR_GENERATOR.OctaveAnchorGenerator.SCALES_PER_OCTAVE = 1
    same_anchors(build_anchor_generator(cfg, LEVELS), build_anchor_generator(zoo_cfg(50), LEVELS))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"base_sizes": [[32], [64]]}, r"ANCHOR_GENERATOR.SIZES.*5 levels.*\[\[32\], \[64\]\]"),
        ({"base_sizes": []}, r"ANCHOR_GENERATOR.SIZES.*\[\]"),
        ({"base_sizes": [[]]}, r"ANCHOR_GENERATOR.SIZES.*\[\[\]\]"),
        ({"base_sizes": [[0]]}, r"ANCHOR_GENERATOR.SIZES.*positive.*\[\[0\]\]"),
        ({"aspect_ratios": [[1.0], [2.0]]}, "ASPECT_RATIOS.*5 levels"),
        ({"aspect_ratios": [-1.0]}, "ASPECT_RATIOS.*positive"),
        ({"scales_per_octave": 0}, r"SCALES_PER_OCTAVE.*\[0, 0, 0, 0, 0\]"),
        ({"scales_per_octave": [3, 3]}, r"SCALES_PER_OCTAVE.*5 levels.*\[3, 3\]"),
    ],
)
def test_wrong_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        OctaveAnchorGenerator(**{"base_sizes": BASES, "strides": STRIDES, **arguments})


@pytest.mark.parametrize("scales", [3.0, "three", True, [3, 3.0], [1, 0], [1, 2, 3]])
def test_scales_that_are_no_whole_numbers_are_named(scales):
    with pytest.raises(ValueError, match="SCALES_PER_OCTAVE needs a whole number"):
        OctaveAnchorGenerator(base_sizes=[[32]], scales_per_octave=scales, strides=[8, 16])
