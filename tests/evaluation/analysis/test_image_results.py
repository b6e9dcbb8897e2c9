"""Images: hotcoco's counts, and the order of worst and best."""

from support.coco_cases import by_hotcoco, random_case, scene

from retina_plugin.evaluation.analysis import analyse

HERE, THERE = [0.0, 0.0, 40.0, 40.0], [100.0, 0.0, 40.0, 40.0]


def test_counts_are_hotcoco():
    truth, found = random_case()
    theirs = by_hotcoco(truth, found).image_diagnostics(iou_thr=0.5)["img_summary"]
    ours = analyse(truth, found, resamples=0, score_thresh=0.0).images
    assert len(ours) == 20
    for x in ours:
        if x.image_id not in theirs:
            assert x.objects == x.true_positives == x.false_positives == 0
            continue
        expected = theirs[x.image_id]
        assert (x.true_positives, x.false_positives) == (expected["tp"], expected["fp"])
        assert x.false_negatives == expected["fn"]
        assert abs(x.f1 - expected["f1"]) < 1e-12


def test_worst_and_best():
    objects = [(0, 0, HERE), (0, 0, THERE), (1, 0, HERE), (2, 0, HERE), (2, 0, THERE), (4, 0, HERE)]
    detections = [
        *((0, 0, box, 0.9) for box in (HERE, THERE)),  # all right
        (1, 0, THERE, 0.9),  # one missed, one false
        (2, 0, HERE, 0.9),  # one missed
        *((4, 0, box, 0.9) for box in ([200.0, 0.0, 9.0, 9.0], [300.0, 0.0, 9.0, 9.0])),
    ]
    result = analyse(*scene(objects, detections, images=5), resamples=0)
    assert [x.f1 for x in result.images] == [1, 0, 2 / 3, 1, 0]
    assert result.worst == [4, 1, 2]
    assert result.best == [0, 2]
    assert result.counts.empty_images == 1
    few = analyse(*scene(objects, detections, images=5), resamples=0, ranked_images=1)
    assert (few.worst, few.best) == ([4], [0])
