"""hotcoco's numbers are pycocotools', or pycocotools computes them."""

import contextlib
import copy
import io
import json
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances
from support.catalogs import catalogs  # noqa: F401 - an autouse fixture
from support.coco_cases import CHANGES, by_pycocotools, random_case

from retina_plugin.evaluation import coco_evaluator as module
from retina_plugin.evaluation.coco_evaluator import (
    HotcocoEvaluator,
    coco_evaluator,
    evaluate_boxes,
    obstacle,
)
from retina_plugin.registry import UnknownNameError
from retina_plugin.workbench.benchmark.coco_evaluation import synthetic_case

ROOT = Path(__file__).resolve().parents[2]


# ---- the numbers


def assert_same_numbers(truth, found, **options):
    before = copy.deepcopy((truth, found))
    with contextlib.redirect_stdout(io.StringIO()):
        ours = evaluate_boxes(truth, found, **options)
    assert (truth, found) == before
    theirs = by_pycocotools(truth, found, **options)
    np.testing.assert_allclose(ours.stats, theirs.stats, rtol=0, atol=1e-12)
    for key in ("precision", "recall", "scores"):
        np.testing.assert_array_equal(ours.eval[key], theirs.eval[key], err_msg=key)
    return theirs.stats


def test_numbers_of_random_detections():
    truth, found = random_case()
    stats = assert_same_numbers(truth, found)
    assert (stats > 0.01).all()
    assert len({x["image_id"] for x in truth["annotations"]}) < 20  # some images are empty


@pytest.mark.parametrize("change", CHANGES)
def test_numbers_of(change):
    truth, found = random_case()
    change(truth, found)
    assert_same_numbers(truth, found)


@pytest.mark.parametrize("max_dets", [(1, 10, 100), (1, 10, 300), (1, 10, 10), (1, 10, 7)])
def test_numbers_of_more_than_100_detections_an_image(max_dets):
    truth, found = synthetic_case(images=3, detections=1500, classes=2)
    assert_same_numbers(truth, found, max_dets=max_dets)


def test_numbers_of_some_of_the_images():
    assert_same_numbers(*random_case(), image_ids=[13, 2, 2, 7])


# ---- the evaluator


class Data:
    """A registered data set, and predictions on each of its images."""

    def __init__(self, truth, found, folder):
        self.folder = folder
        self.images = [x["id"] for x in truth["images"]]
        categories = sorted(x["id"] for x in truth["categories"])
        self.classes = {x: i for i, x in enumerate(categories)}
        self.found = defaultdict(list)
        for x in found:
            self.found[x["image_id"]].append(x)
        (folder / "truth.json").write_text(json.dumps(truth))
        MetadataCatalog.get("some_boxes").set(
            json_file=str(folder / "truth.json"),
            thing_classes=[f"class {x}" for x in categories],
            thing_dataset_id_to_contiguous_id=self.classes,
        )

    def predict(self, image):
        found = self.found[image]
        boxes = torch.tensor([x["bbox"] for x in found]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        classes = [self.classes.get(x["category_id"], len(self.classes)) for x in found]
        return Instances(
            (640, 640),
            pred_boxes=Boxes(boxes),
            scores=torch.tensor([x["score"] for x in found]),
            pred_classes=torch.tensor(classes, dtype=torch.long),
        )

    def evaluate(self, kind, image_ids=None, **options):
        """Results and the predictions' file."""
        output = self.folder / kind.__name__
        with contextlib.redirect_stdout(io.StringIO()):
            evaluator = kind("some_boxes", output_dir=str(output), **options)
            evaluator.reset()
            for image in [*self.images, *(self.found.keys() - set(self.images))]:
                given = [{"image_id": image}]
                evaluator.process(given, [{"instances": self.predict(image)}])
            results = evaluator.evaluate(image_ids)
        return results, (output / "coco_instances_results.json").read_text()


def assert_same_results(data, **options):
    results, predictions = data.evaluate(HotcocoEvaluator, **options)
    expected, expected_predictions = data.evaluate(COCOEvaluator, **options)
    assert list(results) == list(expected)
    for task in expected:
        assert list(results[task]) == list(expected[task])
        both = [[*x[task].values()] for x in (results, expected)]
        np.testing.assert_allclose(*both, rtol=0, atol=1e-10)
    assert predictions == expected_predictions
    return results


@pytest.fixture
def calls(monkeypatch):
    """How often hotcoco was asked."""
    calls = []

    def evaluate(*arguments, **options):
        calls.append(options)
        return evaluate_boxes(*arguments, **options)

    monkeypatch.setattr(module, "evaluate_boxes", evaluate)
    return calls


@pytest.mark.parametrize(
    "options",
    [{}, {"max_dets_per_image": 30}, {"max_dets_per_image": 5}, {"image_ids": [8, 3, 4, 5]}],
)
def test_results_and_files(calls, tmp_path, options):
    results = assert_same_results(Data(*random_case(), tmp_path), tasks=("bbox",), **options)
    assert results["bbox"]["AP-class 1"] > 0
    assert len(calls) == 1


def test_category_ids_with_gaps(calls, tmp_path):
    truth, found = random_case()
    for x in truth["categories"]:
        x["id"] *= 7
    for x in [*truth["annotations"], *found]:
        x["category_id"] *= 7
    data = Data(truth, found, tmp_path)
    assert_same_results(data)
    assert len(calls) == 1
    MetadataCatalog.get("some_boxes").__dict__.pop("thing_dataset_id_to_contiguous_id")
    data.classes = {x: x for x in data.classes}  # predictions carry the json's ids
    assert_same_results(data)
    assert len(calls) == 2


def test_one_class(calls, tmp_path):
    results = assert_same_results(Data(*synthetic_case(10, 50, 1), tmp_path))
    assert list(results["bbox"]) == ["AP", "AP50", "AP75", "APs", "APm", "APl"]
    assert len(calls) == 1


def test_no_detections(calls, tmp_path):
    truth, _ = random_case()
    results = assert_same_results(Data(truth, [], tmp_path))
    assert np.isnan(results["bbox"]["AP"])
    assert not calls


def test_no_annotations(calls, tmp_path):
    truth, found = random_case()
    del truth["annotations"]
    assert assert_same_results(Data(truth, found, tmp_path)) == {}
    assert not calls


def test_other_tasks_are_left_to_pycocotools(calls, tmp_path):
    """Masks made of the boxes, so that there is something to evaluate."""
    truth, found = synthetic_case(3, 5, 1)
    for x in truth["annotations"]:
        x0, y0, w, h = x["bbox"]
        x["segmentation"] = [[x0, y0, x0 + w, y0, x0 + w, y0 + h, x0, y0 + h]]
    data = Data(truth, found, tmp_path)
    predict = data.predict

    def predict_masks(image):
        instances = predict(image)
        instances.pred_masks = torch.zeros(len(instances), 640, 640, dtype=torch.bool)
        for mask, box in zip(instances.pred_masks, instances.pred_boxes, strict=True):
            x0, y0, x1, y1 = box.int().tolist()
            mask[y0:y1, x0:x1] = True
        return instances

    data.predict = predict_masks
    assert set(assert_same_results(data, tasks=("bbox", "segm"))) == {"bbox", "segm"}
    assert not calls
    assert_same_results(data, tasks=("bbox",))
    assert len(calls) == 1


# ---- what hotcoco would judge otherwise


def an_id_of_0(truth, found):
    surest = max((x for x in truth["annotations"] if not x["iscrowd"]), key=lambda x: x["area"])
    surest["id"] = 0
    keys = ("image_id", "category_id", "bbox")
    found.append({key: surest[key] for key in keys} | {"score": 1.0})


def a_shared_id(truth, found):
    for x in truth["annotations"][:20]:
        x["id"] += 20


def a_negative_id(truth, found):
    truth["annotations"][4]["id"] = -5


def texts_as_ids_of_images(truth, found):
    for x in truth["images"]:
        x["id"] = f"image {x['id']}"
    for x in [*truth["annotations"], *found]:
        x["image_id"] = f"image {x['image_id']}"


def a_box_of_nan(truth, found):
    found[3]["bbox"][0] = float("nan")


def a_score_of_nan(truth, found):
    found[3]["score"] = float("nan")


def no_area(truth, found):
    del truth["annotations"][4]["area"]


def no_iscrowd(truth, found):
    del truth["annotations"][4]["iscrowd"]


def a_detection_of_another_image(truth, found):
    found[3]["image_id"] = 77


def a_detection_of_another_class(truth, found):
    found[3]["category_id"] = 77


OBSTACLES = [
    (an_id_of_0, "whose id is 0"),
    (a_shared_id, "id is 0 or another's"),
    (a_negative_id, "not whole numbers from 0 on"),
    (texts_as_ids_of_images, "not whole numbers from 0 on"),
    (a_box_of_nan, "not finite"),
    (a_score_of_nan, "not finite"),
    (no_area, "without area or iscrowd"),
    (no_iscrowd, "without area or iscrowd"),
    (a_detection_of_another_image, "images or classes that the data set does not have"),
    (a_detection_of_another_class, "images or classes that the data set does not have"),
]


@pytest.mark.parametrize("change, reason", OBSTACLES)
def test_pycocotools_judges(calls, tmp_path, change, reason):
    """The same results, or the same refusal."""
    truth, found = random_case()
    categories = {x["id"] for x in truth["categories"]}
    assert obstacle(truth, found, categories) is None
    change(truth, found)
    assert reason in obstacle(truth, found, categories)
    data = Data(truth, found, tmp_path)
    try:
        data.evaluate(COCOEvaluator)
    except (KeyError, AssertionError) as refusal:
        with pytest.raises(type(refusal), match=re.escape(str(refusal))):
            data.evaluate(HotcocoEvaluator)
    else:
        assert_same_results(data)
    assert not calls


@pytest.mark.parametrize("change", [an_id_of_0, a_shared_id])
def test_hotcoco_would_judge_otherwise(change):
    """Else the obstacle could go."""
    truth, found = random_case()
    change(truth, found)
    with pytest.raises(AssertionError):
        assert_same_numbers(truth, found)


# ---- the choice


def test_auto_is_hotcoco():
    assert coco_evaluator("auto") is coco_evaluator("hotcoco") is HotcocoEvaluator
    assert coco_evaluator("pycocotools") is COCOEvaluator


def test_unknown_package():
    message = "TEST.COCO_EVAL: 'hotcoc' is unknown. Did you mean hotcoco?"
    with pytest.raises(UnknownNameError, match=re.escape(message)):
        coco_evaluator("hotcoc")
