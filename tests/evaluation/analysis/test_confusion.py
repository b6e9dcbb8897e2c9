"""Confusion against hotcoco's, a slow count, and the tables that it must agree with."""

import numpy as np
import pytest
from support.coco_cases import (
    by_hotcoco,
    random_case,
    scene,
    with_different_scores,
    with_wrong_classes,
)

from retina_plugin.evaluation.analysis import analyse

HERE, THERE = [0.0, 0.0, 40.0, 40.0], [100.0, 0.0, 40.0, 40.0]


def overlap(a, b):
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def naive(truth, found, score_thresh):
    """Right classes first, then wrong ones, each by score; without crowds and ties."""
    rows = {x["id"]: k for k, x in enumerate(truth["categories"])}
    counts = np.zeros((len(rows) + 1,) * 2, dtype=int)
    free = list(truth["annotations"])
    left = sorted((x for x in found if x["score"] >= score_thresh), key=lambda x: -x["score"])
    for right in (True, False):
        for d in list(left):
            near = [
                (overlap(d["bbox"], x["bbox"]), x)
                for x in free
                if x["image_id"] == d["image_id"]
                and (x["category_id"] == d["category_id"]) == right
            ]
            best, x = max(near, key=lambda pair: pair[0], default=(0, None))
            if best >= 0.5:
                counts[rows[x["category_id"]], rows[d["category_id"]]] += 1
                free.remove(x)
                left.remove(d)
    for x in free:
        counts[rows[x["category_id"]], -1] += 1
    for d in left:
        counts[-1, rows[d["category_id"]]] += 1
    return counts


def some():
    truth, found = random_case()
    with_different_scores(truth, found)
    with_wrong_classes(truth, found)
    for x in truth["annotations"]:
        x["iscrowd"] = 0
    return truth, found


def test_counts_are_those_of_a_slow_count():
    truth, found = some()
    result = analyse(truth, found, resamples=0, score_thresh=0.3)
    expected = naive(truth, found, 0.3)
    np.testing.assert_array_equal(result.confusion.counts, expected)
    assert (expected[:-1, :-1] - np.diag(np.diag(expected)[:-1])).sum() > 5
    assert result.confusion.names == [f"class {k}" for k in range(5)] + ["background"]


def test_rows_and_columns_are_the_counts_of_the_classes():
    result = analyse(*some(), resamples=0)
    counts = np.array(result.confusion.counts)
    for k, one in enumerate(result.classes):
        x = one.at_threshold
        assert counts[k, k] == x.true_positives
        assert counts[k].sum() - counts[k, k] == x.false_negatives
        assert counts[:, k].sum() - counts[k, k] == x.false_positives


def test_one_class_is_hotcoco():
    truth, found = some()
    truth["categories"] = truth["categories"][:1]
    for x in (*truth["annotations"], *found):
        x["category_id"] = truth["categories"][0]["id"]
    theirs = by_hotcoco(truth, found).confusion_matrix(iou_thr=0.5, min_score=0.25)["matrix"]
    ours = analyse(truth, found, resamples=0, score_thresh=0.25).confusion.counts
    np.testing.assert_array_equal(ours, theirs.astype(int))


@pytest.mark.parametrize(
    ("objects", "detections", "expected"),
    [
        ([(0, 0, HERE)], [(0, 0, HERE, 0.9)], [[1, 0, 0], [0, 0, 0], [0, 0, 0]]),
        ([(0, 0, HERE)], [(0, 1, HERE, 0.9)], [[0, 1, 0], [0, 0, 0], [0, 0, 0]]),
        ([(0, 0, HERE)], [(0, 1, THERE, 0.9)], [[0, 0, 1], [0, 0, 0], [0, 1, 0]]),
        # the right class has the object, however sure the wrong one is
        (
            [(0, 0, HERE)],
            [(0, 1, HERE, 0.9), (0, 0, HERE, 0.5)],
            [[1, 0, 0], [0, 0, 0], [0, 1, 0]],
        ),
        # one of the two is confused, the other has no object left
        (
            [(0, 0, HERE)],
            [(0, 1, HERE, 0.9), (0, 1, HERE, 0.5)],
            [[0, 1, 0], [0, 0, 0], [0, 1, 0]],
        ),
        ([(0, 0, HERE)], [], [[0, 0, 1], [0, 0, 0], [0, 0, 0]]),
    ],
)
def test_scenes(objects, detections, expected):
    truth, found = scene(objects, detections)
    result = analyse(truth, found, resamples=0, score_thresh=0.1)
    assert result.confusion.counts == expected


def test_what_lies_on_a_crowd_counts_nowhere():
    truth, found = scene([(0, 0, HERE)], [(0, 0, HERE, 0.9), (0, 0, HERE, 0.8)])
    truth["annotations"][0]["iscrowd"] = 1
    result = analyse(truth, found, resamples=0, score_thresh=0.1)
    assert np.sum(result.confusion.counts) == 0
    assert result.counts.ignored_detections == 2
