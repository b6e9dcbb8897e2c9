"""What no single box shows: copies, crowds of boxes, classes without any, boxes off the anchors."""

import logging
import shlex
from dataclasses import replace

import pytest
from support.catalogs import catalogs  # noqa: F401 - an autouse fixture
from support.checked_sets import HEIGHT, WIDTH, box, make_records
from support.tiny_models import tiny_focal_cfg

from retina_plugin.data.checks import CheckedSet
from retina_plugin.data.findings import Findings
from retina_plugin.data.image_files import ImageFiles
from retina_plugin.workbench.anchors.coverage import coverage_of
from retina_plugin.workbench.doctor.boxes import check_boxes
from retina_plugin.workbench.doctor.classes import check_classes
from retina_plugin.workbench.doctor.reach import check_reach, check_tiny


@pytest.fixture
def make(tmp_path):
    def make(*images, split="TRAIN", name="set", **metadata):
        folder = tmp_path / name
        folder.mkdir()
        records = make_records(folder, *images, name=name, **metadata)
        return CheckedSet(name, [split], records, ImageFiles())

    return make


def found(check, *arguments, level=logging.WARNING):
    findings = Findings()
    check(*arguments, findings)
    return [x for x in findings if x.level >= level]


# ---- boxes


def test_good_boxes(make):
    checked = make([box(), box(category_id=1), box(x=3), box(0, 0, WIDTH + 0.5, HEIGHT)])
    assert found(check_boxes, tiny_focal_cfg(), [checked], level=0) == []


@pytest.mark.parametrize(("split", "why"), [("TRAIN", "count twice"), ("TEST", "as missed")])
def test_boxes_that_are_there_twice(make, split, why):
    crowd = box(iscrowd=1)
    checked = make([box(), box(), box(x=9), box()], [box(), crowd, crowd], split=split)
    (finding,) = found(check_boxes, tiny_focal_cfg(), [checked])
    assert (finding.what, finding.count) == ("boxes that are there twice", 2)
    assert why in finding.why and "write-clean" in finding.fix


def test_boxes_partly_outside(make):
    checked = make([box(x=-5), box(y=HEIGHT - 5), box(x=WIDTH + 5)])  # the last is not partly so
    (finding,) = found(check_boxes, tiny_focal_cfg(), [checked], level=0)
    assert (finding.level, finding.count) == (logging.INFO, 2)
    assert "partly outside" in finding.what


def test_more_boxes_than_detections(make):
    checked = make([box(x=i / 10) for i in range(130)], [box()], split="TEST")
    cfg = tiny_focal_cfg()
    (finding,) = found(check_boxes, cfg, [checked])
    assert "DETECTIONS_PER_IMAGE 100" in finding.what and "image 0" in finding.examples[0]
    assert finding.fix == "TEST.DETECTIONS_PER_IMAGE=300"
    cfg.TEST.DETECTIONS_PER_IMAGE = 300
    assert found(check_boxes, cfg, [checked]) == []
    (note,) = found(check_boxes, cfg, [checked], level=0)
    assert "100 detections that COCO's AP counts" in note.what


# ---- classes


def test_classes_without_boxes(make):
    cfg = tiny_focal_cfg(NUM_CLASSES=4)
    names = ["a", "b", "c", "d"]
    train = make([box(), box(category_id=1), box(category_id=3, iscrowd=1)], thing_classes=names)
    test = make([box(category_id=1), box(category_id=2)], split="TEST", name="test")
    cfg.DATASETS.TEST = ("test",)
    (finding,) = found(check_classes, cfg, [train, test])
    assert finding.examples == ["c (1 boxes in the evaluation)", "d"]
    assert "without a box to train on" in finding.what
    note, _ = found(check_classes, cfg, [train, test], level=0)
    assert note.level == logging.INFO and note.examples == ["a"]


# ---- anchors


def coverage(make, boxes, smallest=16):
    """Of a data set of one image of 256 x 256."""
    cfg = tiny_focal_cfg()
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[smallest * 2**level] for level in range(5)]
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP = (256,), "none"
    checked = make(boxes, name="big", thing_classes=list("abcdefg"))
    for record in checked.records:
        record.update(width=256, height=256)
    cfg.DATASETS.TRAIN = ("big",)
    return cfg, coverage_of(cfg, "train")


def test_boxes_that_anchors_reach(make):
    cfg, found_coverage = coverage(make, [box(20, 20, 32, 32), box(90, 90, 60, 70)])
    (note,) = found(check_reach, cfg, found_coverage, level=0)
    assert note.level == logging.INFO and "reaches 0% of" in note.what
    assert found(check_tiny, cfg, found_coverage, level=0) == []


def test_boxes_that_are_too_small_for_the_anchors(make):
    small = [box(25 * i, 40, 28, 30, category_id=2) for i in range(9)]
    cfg, found_coverage = coverage(make, [*small, box(90, 90, 60, 70)], smallest=64)
    (finding,) = found(check_reach, cfg, found_coverage)
    assert "reaches 90% of the boxes" in finding.what
    assert "9 are of 16 to 32 px" in finding.what and "c 100%, a 0%" in finding.what
    key, _, sizes = finding.fix.strip("'").partition("=")
    assert key == "MODEL.ANCHOR_GENERATOR.SIZES"
    cfg.merge_from_list([key, sizes])
    assert found(check_reach, cfg, coverage_of(cfg, "train")) == []


def test_boxes_that_are_tiny(make):
    cfg, found_coverage = coverage(make, [box(20 * i, 40, 7, 7.5) for i in range(9)])
    (finding,) = found(check_tiny, cfg, found_coverage)
    assert "100% of the boxes to train on are below 8 px" in finding.what
    cfg.merge_from_list([x for fix in shlex.split(finding.fix) for x in fix.split("=")])
    assert cfg.INPUT.MIN_SIZE_TRAIN == (512,)
    assert found(check_tiny, cfg, coverage_of(cfg, "train")) == []


def test_boxes_of_a_shape_that_no_size_helps(make):
    cfg, found_coverage = coverage(make, [box(10, 9 * i, 200, 7) for i in range(9)])
    (finding,) = found(check_reach, cfg, found_coverage)
    assert finding.fix == "retina anchors CONFIG --fit --write anchors.yaml"
    assert "_BASE_" in finding.advice


def test_another_assigner_goes_by_no_iou(make):
    cfg, found_coverage = coverage(make, [box(20 * i, 40, 7, 7.5) for i in range(9)])
    assert "few anchors or none" in found(check_reach, cfg, found_coverage)[0].why
    other = replace(found_coverage, is_yardstick=True, assigner="ATSSAssigner")
    assert "ATSSAssigner goes by no fixed IoU" in found(check_reach, cfg, other)[0].why
