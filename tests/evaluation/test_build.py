"""A data set's type picks the evaluator, and the evaluators run on what our loader gives."""

import json
import sys
from types import ModuleType
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.data.datasets.pascal_voc import register_pascal_voc
from detectron2.evaluation import (
    COCOEvaluator,
    PascalVOCDetectionEvaluator,
    inference_on_dataset,
)
from detectron2.structures import Boxes, Instances
from PIL import Image
from torch import nn

from retina_plugin.config.defaults import add_retina_config
from retina_plugin.engine.trainer import RetinaTrainer
from retina_plugin.evaluation import build_evaluator
from retina_plugin.evaluation.build import evaluator_type
from retina_plugin.evaluation.coco_evaluator import coco_evaluator
from retina_plugin.evaluation.lvis_evaluator import LVISBoxEvaluator
from retina_plugin.registry import UnknownNameError

CLASSES = ["cat", "dog"]
# image -> (class, XYXY box); three images of 60 x 80 pixels
OBJECTS = {
    "000001": [(0, (5, 5, 35, 45)), (1, (40, 10, 70, 50))],
    "000002": [(1, (10, 20, 50, 55))],
    "000003": [(0, (0, 0, 79, 59))],
}


@pytest.fixture
def catalog():
    """Forget the data sets that a test registers."""
    before = set(DatasetCatalog.list())
    yield DatasetCatalog
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "JPEGImages"
    folder.mkdir()
    for name in OBJECTS:
        Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(folder / f"{name}.jpg")
    return folder


@pytest.fixture
def coco(tmp_path, images, catalog):
    content = {
        "images": [
            {"id": int(name), "file_name": f"{name}.jpg", "height": 60, "width": 80}
            for name in OBJECTS
        ],
        "annotations": [
            {
                "id": int(name) * 10 + i,
                "image_id": int(name),
                "category_id": label + 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": (x1 - x0) * (y1 - y0),
                "iscrowd": 0,
            }
            for name, objects in OBJECTS.items()
            for i, (label, (x0, y0, x1, y1)) in enumerate(objects)
        ],
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)],
    }
    (tmp_path / "pets.json").write_text(json.dumps(content))
    register_coco_instances("pets_coco", {}, str(tmp_path / "pets.json"), str(images))
    return "pets_coco"


@pytest.fixture
def voc(tmp_path, images, catalog):
    """The folders of Pascal VOC, whose pixels are counted from 1."""
    for folder in ("Annotations", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "ImageSets/Main/test.txt").write_text("\n".join(OBJECTS))
    for name, objects in OBJECTS.items():
        root = ElementTree.Element("annotation")
        size = ElementTree.SubElement(root, "size")
        for key, value in (("width", 80), ("height", 60), ("depth", 3)):
            ElementTree.SubElement(size, key).text = str(value)
        for label, box in objects:
            node = ElementTree.SubElement(root, "object")
            fields = {"name": CLASSES[label], "pose": "Left", "truncated": "0", "difficult": "0"}
            for key, value in fields.items():
                ElementTree.SubElement(node, key).text = value
            corners = ElementTree.SubElement(node, "bndbox")
            for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True):
                ElementTree.SubElement(corners, key).text = str(value + key.endswith("min"))
        ElementTree.ElementTree(root).write(tmp_path / f"Annotations/{name}.xml")
    register_pascal_voc("pets_voc", str(tmp_path), "test", 2007, CLASSES)
    MetadataCatalog.get("pets_voc").evaluator_type = "pascal_voc"
    return "pets_voc"


class Oracle(nn.Module):
    """Finds every object, after ``shift`` pixels to the right."""

    def __init__(self, shift=0):
        super().__init__()
        self.shift = shift

    def forward(self, inputs):
        outputs = []
        for given in inputs:
            labels, boxes = zip(*OBJECTS[f"{int(given['image_id']):06d}"], strict=True)
            found = Instances((given["height"], given["width"]))
            found.pred_boxes = Boxes(
                torch.tensor(boxes).float() + torch.tensor([self.shift, 0, self.shift, 0])
            )
            found.scores = torch.linspace(0.9, 0.8, len(labels))
            found.pred_classes = torch.tensor(labels)
            outputs.append({"instances": found})
        return outputs


def evaluate(name, model, output_dir):
    """The AP that our trainer's loader and evaluator give."""
    cfg = add_retina_config(get_cfg())
    cfg.INPUT.MIN_SIZE_TEST = 0
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.OUTPUT_DIR = str(output_dir)
    loader = RetinaTrainer.build_test_loader(cfg, name)
    return inference_on_dataset(model, loader, RetinaTrainer.build_evaluator(cfg, name))["bbox"]


def test_coco(coco, tmp_path):
    assert type(build_evaluator(coco, tmp_path)) is COCOEvaluator
    perfect = evaluate(coco, Oracle(), tmp_path)
    assert perfect["AP"] == pytest.approx(100)
    assert {"AP-cat", "AP-dog"} <= perfect.keys()
    shifted = evaluate(coco, Oracle(shift=8), tmp_path)
    assert 0 < shifted["AP"] < shifted["AP50"]
    results = tmp_path / "inference" / coco / "coco_instances_results.json"
    assert len(json.loads(results.read_text())) == 4


def test_coco_is_the_type_of_a_json_without_type(coco, tmp_path):
    MetadataCatalog.get("pets_untyped").json_file = MetadataCatalog.get(coco).json_file
    assert type(build_evaluator("pets_untyped", tmp_path)) is COCOEvaluator
    MetadataCatalog.pop("pets_untyped")


def test_pascal_voc(voc, tmp_path):
    assert type(build_evaluator(voc, tmp_path)) is PascalVOCDetectionEvaluator
    perfect = evaluate(voc, Oracle(), tmp_path)
    assert perfect["AP"] == pytest.approx(100)
    shifted = evaluate(voc, Oracle(shift=8), tmp_path)
    assert 0 < shifted["AP"] < shifted["AP50"]


def typed(name, kind):
    MetadataCatalog.get(name).evaluator_type = kind
    return name


@pytest.fixture
def dataset():
    """A name with no data behind it; the catalog forgets what a test says of it."""
    yield "pets_of_some_type"
    MetadataCatalog.pop("pets_of_some_type", None)


def test_lvis_missing_names_the_extra(dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lvis", None)
    with pytest.raises(ImportError, match=r'pip install "retina-plugin\[lvis\]"'):
        build_evaluator(typed(dataset, "lvis"), tmp_path)


def test_lvis(coco, dataset, tmp_path, monkeypatch):
    """With a stand-in for LVIS's package, of which the constructor asks one thing."""
    lvis = ModuleType("lvis")
    lvis.LVIS = lambda path: type("Lvis", (), {"get_ann_ids": lambda self: [1], "path": path})()
    monkeypatch.setitem(sys.modules, "lvis", lvis)
    MetadataCatalog.get(dataset).json_file = MetadataCatalog.get(coco).json_file
    evaluator = build_evaluator(typed(dataset, "lvis"), tmp_path)
    assert type(evaluator) is LVISBoxEvaluator
    assert evaluator._lvis_api.path.endswith("pets.json")


@pytest.mark.parametrize(
    "kind, hint", [("cocoo", "Did you mean coco"), ("cityscapes_instance", "Valid: coco")]
)
def test_unknown_type_lists_the_valid_ones(dataset, tmp_path, kind, hint):
    message = f"{dataset}: '{kind}' is unknown. {hint}.*, lvis, pascal_voc"
    with pytest.raises(UnknownNameError, match=message):
        build_evaluator(typed(dataset, kind), tmp_path)


def test_no_type_lists_the_valid_ones(dataset):
    with pytest.raises(UnknownNameError, match=r'evaluator_type = "coco".*coco, lvis, pascal_voc'):
        evaluator_type(dataset)


def test_pascal_voc_without_type_says_what_to_set(voc):
    del MetadataCatalog.get(voc).evaluator_type
    expected = rf'MetadataCatalog.get\("{voc}"\).evaluator_type = "pascal_voc"'
    with pytest.raises(UnknownNameError, match=expected):
        evaluator_type(voc)


@pytest.mark.parametrize("key", ["auto", "hotcoco", "pycocotools"])
def test_the_config_chooses_who_computes_coco_numbers(coco, tmp_path, key):
    cfg = add_retina_config(get_cfg())
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.TEST.COCO_EVAL = key
    assert type(RetinaTrainer.build_evaluator(cfg, coco)) is coco_evaluator(key)


def test_a_config_without_our_keys_is_auto(coco, tmp_path):
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    assert type(RetinaTrainer.build_evaluator(cfg, coco)) is coco_evaluator("auto")


@pytest.mark.parametrize("kind", ["coco", "pascal_voc"])
def test_unknown_package_is_said_before_training(dataset, kind):
    with pytest.raises(UnknownNameError, match=r"TEST\.COCO_EVAL: 'fast' is unknown"):
        evaluator_type(typed(dataset, kind), coco_eval="fast")
