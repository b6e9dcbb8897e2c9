"""Every box is in one row of each table, and the rows say what the boxes are."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from support.anchor_data import cfg_of_boxes
from support.catalogs import catalogs  # noqa: F401

from retina_plugin.workbench.anchors import coverage_of
from retina_plugin.workbench.anchors.summary import as_dict, as_text, by_class, by_crop, tables

BOXES = [
    (0, 0, 16, 16),
    (40, 40, 72, 72),
    (100, 100, 400, 500),
    (8, 200, 12, 300),
    (60, 300, 90, 310),
]


@pytest.fixture
def cover():
    return coverage_of(cfg_of_boxes([BOXES, BOXES[:2]]))


def test_every_box_is_in_one_row_of_each_table(cover):
    for title, rows in tables(cover).items():
        assert sum(x.boxes for x in rows) == len(cover), title
        assert sum(x.missed for x in rows) == cover.missed.sum(), title
        mean = sum(x.boxes * x.mean_iou for x in rows if x.boxes) / len(cover)
        assert mean == pytest.approx(cover.iou.mean(), rel=1e-5), title


def test_rows_are_what_they_say(cover):
    rows = {t: {x.name: x.boxes for x in rows if x.boxes} for t, rows in tables(cover).items()}
    assert rows["size in the file"] == {
        "small, under 32 px": 4,
        "medium, under 96 px": 2,
        "large": 1,
    }
    assert rows["size in the network"]["16 to 32 px"] == 4
    assert rows["height / width"] == {
        "0.25 to 0.5": 1,
        "0.8 to 1.25": 4,
        "1.25 to 2": 1,
        "4 and over": 1,
    }
    assert set(rows["class"]) == {"class 0", "class 1"}
    levels = [x.name for x in tables(cover)["level of the best anchor"]]
    assert levels[0] == "p3, stride 8, anchors 16 20.2 25.4" and len(levels) == 5


def test_shares_are_those_of_the_ious(cover):
    (everything,) = tables(cover)["all"]
    assert everything.recall_40 == np.mean(cover.iou >= 0.4)
    assert everything.recall_50 == np.mean(cover.iou >= 0.5)


def test_the_worst_classes_come_first_and_the_text_has_twenty():
    line = (10, 10, 300, 14)
    good = (0, 0, 16, 16)
    cover = coverage_of(cfg_of_boxes([[good] * 24 + [line]], classes=25))
    rows = by_class(cover)
    assert rows[0].name == "class 24" and rows[0].missed == 1 and rows[1].missed == 0
    text = as_text(cover)
    assert "class, worst 20 of 25" in text and text.count("  class ") == 20
    assert len(as_dict(cover)["class"]) == 25


def test_boxes_cut_by_a_crop_are_apart(cover):
    assert by_crop(cover) == []
    cover.seen.visible[:3] = 0.4
    assert [(x.name, x.boxes) for x in by_crop(cover)] == [("whole", 4), ("cut by a crop", 3)]


def test_a_script_gets_the_same_numbers(cover):
    values = json.loads(json.dumps(as_dict(cover), allow_nan=False))
    assert values["threshold"] == 0.5 and values["all"] == [asdict(tables(cover)["all"][0])]
    empty = [x for x in values["level of the best anchor"] if not x["boxes"]]
    assert empty and all(x["mean_iou"] is None for x in empty)
