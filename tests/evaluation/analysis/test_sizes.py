"""Recall and precision by size."""

import pytest
from support.coco_cases import by_pycocotools, random_case, scene

from retina_plugin.evaluation.analysis import analyse


def square(side, x=0.0):
    return [x, 0.0, side, side]


def test_coco_sizes_are_pycocotools():
    truth, found = random_case()
    evaluation = by_pycocotools(truth, found)
    result = analyse(truth, found, resamples=0, score_thresh=0.0)
    assert [x.name for x in result.sizes] == ["all", "small", "medium", "large"]
    names = ("AP", "APs", "APm", "APl")
    assert [x.AP for x in result.sizes] == [result.coco[name] for name in names]
    per_area = [evaluation.evalImgs[i : i + 20] for i in range(0, len(evaluation.evalImgs), 20)]
    for area, size in enumerate(result.sizes):
        there = [x for block in per_area[area::4] for x in block if x is not None]
        objects = sum((x["gtIgnore"] == 0).sum() for x in there)
        hits = sum(((x["dtMatches"][0] > 0) & ~x["dtIgnore"][0]).sum() for x in there)
        kept = sum((~x["dtIgnore"][0]).sum() for x in there)
        assert (size.objects, size.detections) == (objects, kept)
        assert size.recall == pytest.approx(hits / objects)
        assert size.precision == pytest.approx(hits / kept)
        assert size.recall_low < size.recall < size.recall_high


def test_octaves_sort_by_side():
    sides = (7.9, 8.0, 16.0, 16.0, 70.0)
    objects = [(0, 0, square(side, 100.0 * i)) for i, side in enumerate(sides)]
    detections = [
        (0, 0, square(16, 200.0), 0.9),
        (0, 0, square(17, 600.0), 0.9),  # on nothing, by its own size
        (0, 0, square(500, 1000.0), 0.9),  # on nothing, larger than all: the last
        (0, 0, square(2, 700.0), 0.9),  # smaller than all: the first
    ]
    result = analyse(*scene(objects, detections), resamples=0, score_thresh=0.5)
    rows = [(x.name, x.objects, x.detections, x.recall, x.precision) for x in result.octaves]
    assert rows == [
        ("0-8", 1, 1, 0.0, 0.0),
        ("8-16", 1, 0, 0.0, None),
        ("16-32", 2, 2, 0.5, 0.5),
        ("32-64", 0, 0, None, None),
        ("64-128", 1, 1, 0.0, 0.0),
    ]
    assert (result.octaves[0].low, result.octaves[0].high) == (0, 8)
    assert (result.octaves[-1].low, result.octaves[-1].high) == (64, 128)


def test_octaves_lose_nothing():
    result = analyse(*random_case(), resamples=0)
    point = result.overall.at_threshold
    assert sum(x.objects for x in result.octaves) == result.counts.objects
    kept = point.true_positives + point.false_positives
    assert sum(x.detections for x in result.octaves) == kept == result.counts.kept_detections


def test_no_objects_have_no_octaves():
    result = analyse(*scene([], [(0, 0, square(10), 0.9)]), resamples=0)
    assert result.octaves == []
