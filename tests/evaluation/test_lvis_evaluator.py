"""LVIS's own evaluation, from a training to its numbers, and what is refused before it."""

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.lvis import register_lvis_instances
from detectron2.structures import Boxes, Instances
from support.tiny_training import tiny_training_cfg

from retina_plugin.engine.trainer import RetinaTrainer
from retina_plugin.evaluation.build import build_evaluator, check_evaluation

NAME = "tiny_lvis_v1"  # the name decides the class names


@pytest.fixture
def lvis(monkeypatch):
    """The package, which imports OpenCV for drawing alone."""
    if "cv2" not in sys.modules:
        monkeypatch.setitem(sys.modules, "cv2", ModuleType("cv2"))
    return pytest.importorskip("lvis")


@pytest.fixture
def cfg(tmp_path):
    """A training whose test set is in LVIS's format."""
    cfg = tiny_training_cfg(tmp_path, "TEST.EVAL_PERIOD", 6, "TEST.VALIDATION_LOSS", False)
    meta = MetadataCatalog.get(cfg.DATASETS.TEST[0])
    content, images = json.loads(Path(meta.json_file).read_text()), Path(meta.image_root)
    for image in content["images"]:
        image |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
        image["coco_url"] = f"{images.name}/{image['file_name']}"
    for category, frequency in zip(content["categories"], "rcf", strict=True):
        category["frequency"] = frequency
    for annotation in content["annotations"]:
        x, y, w, h = annotation["bbox"]
        annotation["area"] = w * h
        annotation["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    path = tmp_path / "lvis.json"
    path.write_text(json.dumps(content))
    register_lvis_instances(NAME, {}, str(path), f"{images.parent}/")
    cfg.DATASETS.TEST = (NAME,)
    yield cfg
    DatasetCatalog.remove(NAME)
    MetadataCatalog.pop(NAME)


def change(cfg, part, key, value=None):
    """Set a key of the last entry, or take it out."""
    path = Path(MetadataCatalog.get(NAME).json_file)
    content = json.loads(path.read_text())
    if value is None:
        del content[part][-1][key]
    else:
        content[part][-1][key] = value
    path.write_text(json.dumps(content))


def test_a_training_ends_with_lvis_numbers(lvis, cfg):
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST = 0.01
    check_evaluation(NAME)
    trainer = RetinaTrainer(cfg)
    results = trainer.train()
    assert {"AP", "AP50", "APr", "APc", "APf"} <= results["bbox"].keys()
    assert "float" not in vars(np)  # the workaround cleans up


def test_perfect_detections(lvis, cfg, tmp_path):
    evaluator = build_evaluator(NAME, tmp_path)
    evaluator.reset()
    for record in DatasetCatalog.get(NAME):
        boxes = torch.tensor([x["bbox"] for x in record["annotations"]], dtype=torch.float32)
        boxes[:, 2:] += boxes[:, :2]
        found = Instances(
            (record["height"], record["width"]),
            pred_boxes=Boxes(boxes),
            scores=torch.full((len(boxes),), 0.9),
            pred_classes=torch.tensor([x["category_id"] for x in record["annotations"]]),
        )
        evaluator.process([record], [{"instances": found}])
    assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100)


@pytest.mark.parametrize(
    "part, key, value, message",
    [
        ("images", "neg_category_ids", None, "of 'images' has no neg_category_ids"),
        ("images", "not_exhaustive_category_ids", None, "no not_exhaustive_category_ids"),
        ("categories", "frequency", None, "of 'categories' has no frequency"),
        ("categories", "frequency", "often", "frequency 'often', LVIS has r, c, f"),
        ("annotations", "area", None, "of 'annotations' has no area"),
    ],
)
def test_files_that_lvis_would_stumble_over(lvis, cfg, part, key, value, message):
    change(cfg, part, key, value)
    with pytest.raises(ValueError, match=rf"lvis.json: .*{message}.*evaluator_type = \"coco\""):
        check_evaluation(NAME)


def test_no_file(lvis):
    MetadataCatalog.get("nowhere").evaluator_type = "lvis"
    with pytest.raises(ValueError, match="no json_file"):
        check_evaluation("nowhere")
    MetadataCatalog.pop("nowhere")
