"""Matches are pycocotools', for areas and for any other set of objects."""

import copy

import numpy as np
import pytest
from support.coco_cases import CHANGES, by_pycocotools, random_case

from retina_plugin.evaluation.analysis.coco_numbers import (
    IOU_THRESHOLDS,
    area_views,
    precision_over_recall,
)
from retina_plugin.evaluation.analysis.columns import read_columns
from retina_plugin.evaluation.analysis.matching import View, match


def nothing(truth, found):
    pass


@pytest.mark.parametrize(
    ("change", "most"), [(nothing, 3), (nothing, 100), *((change, 100) for change in CHANGES)]
)
def test_matches_and_curves_are_pycocotools(change, most):
    truth, found = random_case()
    change(truth, found)
    evaluation = by_pycocotools(truth, found, max_dets=(1, 2, most))
    columns = read_columns(truth, found, max_detections=most)
    matches = match(columns, area_views(columns), IOU_THRESHOLDS)
    ids = np.array([x["id"] for x in truth["annotations"]] + [0])[matches.object]
    per_area = np.array(evaluation.evalImgs, dtype=object).reshape(-1, 4, len(truth["images"]))
    for view in range(4):
        theirs = [x for x in per_area[:, view].ravel() if x is not None and x["dtIds"]]
        for ours, key in ((ids, "dtMatches"), (matches.ignored, "dtIgnore")):
            expected = np.concatenate([x[key] for x in theirs], axis=1)
            np.testing.assert_array_equal(ours[view], expected, err_msg=key)
        curves = precision_over_recall(columns, matches, view=view)
        for ours, key in ((curves.precision, "precision"), (curves.score, "scores")):
            expected = evaluation.eval[key][..., view, -1].transpose(0, 2, 1)
            undefined = np.isnan(curves.precision)
            np.testing.assert_array_equal(np.where(undefined, -1, ours), expected, err_msg=key)
        expected = evaluation.eval["recall"][..., view, -1]
        np.testing.assert_array_equal(np.nan_to_num(curves.recall, nan=-1), expected)


def test_other_objects_are_ignored_as_those_of_other_sizes():
    """pycocotools ignores what lies out of a range of areas: so it can be made to ignore any."""
    truth, found = random_case()
    others = copy.deepcopy(truth)
    for x in others["annotations"][::2]:
        x["area"] = 1e20
    evaluation = by_pycocotools(others, found)
    columns = read_columns(truth, found, max_detections=100)
    mine = np.arange(len(columns.objects)) % 2 == 1
    matches = match(columns, [View(counts=mine)], IOU_THRESHOLDS)
    ours = precision_over_recall(columns, matches).precision
    theirs = evaluation.eval["precision"][..., 0, -1].transpose(0, 2, 1)
    np.testing.assert_array_equal(np.nan_to_num(ours, nan=-1), theirs)
    assert matches.ignored.sum() > 100
