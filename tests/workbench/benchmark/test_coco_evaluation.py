"""The comparison of the two evaluations, on a small case."""

from retina_plugin.workbench.benchmark.coco_evaluation import compare, synthetic_case


def test_compare():
    found = compare(images=12, detections=240, classes=4, repeats=3)
    assert found["max_difference"] <= 1e-6
    assert [len(found["samples"][name]) for name in ("stock", "plugin")] == [3, 3]
    ratio = found["ratio_to_stock"]["plugin"]
    assert 0 < ratio["min"] <= ratio["median"] <= ratio["max"]


def test_case_has_the_size_asked_for_and_the_hard_parts():
    truth, found = synthetic_case(images=30, detections=900, classes=5)
    assert (len(truth["images"]), len(found), len(truth["categories"])) == (30, 900, 5)
    assert {x["category_id"] for x in truth["annotations"]} == {1, 2, 3, 4}  # none of the last
    assert len({x["image_id"] for x in truth["annotations"]}) <= 27  # images without objects
    assert any(x["iscrowd"] for x in truth["annotations"])
    assert len({x["score"] for x in found}) < 900  # ties
    assert (truth, found) == synthetic_case(30, 900, 5)
