"""Hits, misses and curves are those of pycocotools, for areas and for any other set of objects."""

import copy

import numpy as np
import pytest
from support.coco_cases import CHANGES, by_pycocotools, random_case

from retina_plugin.evaluation.analysis.coco_evaluation import AREAS, IOU_THRESHOLDS, Evaluation
from retina_plugin.evaluation.analysis.columns import read_columns


def nothing(truth, found):
    pass


def judged_by_pycocotools(evaluation, area):
    """(T, D) id of the object that each detection takes (0 for none), and whether it is ignored."""
    images = len(evaluation.params.imgIds)
    cells = np.array(evaluation.evalImgs, dtype=object).reshape(-1, len(AREAS), images)[:, area]
    cells = [x for x in cells.ravel() if x is not None and x["dtIds"]]
    return [np.concatenate([x[key] for x in cells], axis=1) for key in ("dtMatches", "dtIgnore")]


def assert_verdicts(verdicts, matched, ignored, ids):
    np.testing.assert_array_equal(verdicts.hit, (matched > 0) & ~ignored)
    np.testing.assert_array_equal(verdicts.miss, (matched == 0) & ~ignored)
    object_ids = np.r_[ids, 0][verdicts.object]
    np.testing.assert_array_equal(object_ids, np.where(verdicts.hit, matched, 0))


@pytest.mark.parametrize(
    ("change", "most"), [(nothing, 3), (nothing, 100), *((change, 100) for change in CHANGES)]
)
def test_verdicts_and_curves_are_pycocotools(change, most):
    truth, found = random_case()
    change(truth, found)
    reference = by_pycocotools(truth, found, max_dets=(1, 2, most))
    evaluation = Evaluation(read_columns(truth, found, max_detections=most))
    ids = np.array([x["id"] for x in truth["annotations"]], dtype=int)
    matched, ignored = judged_by_pycocotools(reference, 0)
    for t, verdicts in enumerate(evaluation.verdicts_of_coco()):
        assert_verdicts(verdicts, matched[t], ignored[t].astype(bool), ids)
    for index, area in enumerate(AREAS):
        matched, ignored = judged_by_pycocotools(reference, index)
        assert_verdicts(evaluation.verdicts(area=area), matched[0], ignored[0].astype(bool), ids)
    for ours, key in (
        (evaluation.precision, "precision"),
        (evaluation.scores, "scores"),
        (evaluation.recall[..., -1], "recall"),
    ):
        expected = reference.eval[key][..., -1]
        undefined = np.isnan(ours) if key != "scores" else np.isnan(evaluation.precision)
        np.testing.assert_array_equal(np.where(undefined, -1, ours), expected, err_msg=key)


@pytest.mark.parametrize("iou", [0.62, 1.0])
def test_verdicts_at_another_iou_are_pycocotools(iou):
    truth, found = random_case()
    for x, y in zip(truth["annotations"], found, strict=False):
        y |= {key: x[key] for key in ("image_id", "category_id", "bbox")}
    reference = by_pycocotools(truth, found)
    reference.params.iouThrs = np.array([iou])
    reference.evaluate()
    matched, ignored = judged_by_pycocotools(reference, 0)
    ids = np.array([x["id"] for x in truth["annotations"]])
    columns = read_columns(truth, found, max_detections=100)
    verdicts = Evaluation(columns, iou).verdicts()
    assert_verdicts(verdicts, matched[0], ignored[0].astype(bool), ids)
    assert verdicts.hit.sum() > 50


def test_other_objects_are_ignored_as_those_of_other_sizes():
    """pycocotools ignores what lies out of a range of areas: so it can be made to ignore any."""
    truth, found = random_case()
    others = copy.deepcopy(truth)
    for x in others["annotations"][::2]:
        x["area"] = 1e20
    reference = by_pycocotools(others, found)
    columns = read_columns(truth, found, max_detections=100)
    ignored = np.arange(len(columns.objects)) % 2 == 0
    ours = Evaluation(columns, ignored=ignored).precision[..., 0]
    theirs = reference.eval["precision"][..., 0, -1]
    np.testing.assert_array_equal(np.nan_to_num(ours, nan=-1), theirs)
    assert len(IOU_THRESHOLDS) == len(ours)
