"""Whatever the data holds, training either goes right or is refused before it starts.

Every case is a data set on disk, registered by config keys, checked as `train_net.py` does, loaded
by Detectron2's loader and trained on for one step.
"""

import json
import logging

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import (
    DatasetCatalog,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.evaluation import COCOEvaluator, inference_on_dataset
from detectron2.modeling import build_model
from PIL import Image
from support.catalogs import catalogs  # noqa: F401 - an autouse fixture
from support.oracle import Oracle

from retina_plugin import add_retina_config
from retina_plugin.data.checks import check_datasets
from retina_plugin.data.coco_json import CocoDataset
from retina_plugin.data.coco_registration import register_datasets
from retina_plugin.data.findings import DataError
from retina_plugin.data.mapper import RetinaDatasetMapper


@pytest.fixture
def make(tmp_path):
    """A function: images as lists of (XYXY box, class, is crowd), of one size -> config."""

    def make(images, size=(64, 48), edit=None, num_classes=None, suffix="png"):
        dataset = CocoDataset(["cat", "dog", "elk"])
        for index, boxes in enumerate(images):
            file_name = f"{index}.{suffix}"
            pixels = np.random.default_rng(index).integers(0, 255, (*size[::-1], 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / file_name)
            image_id = dataset.add_image(file_name, *size)
            for box, class_index, crowd in boxes:
                dataset.add_box(image_id, box, class_index, crowd=crowd)
        dataset.save(tmp_path / "bad.json")
        if edit is not None:
            content = json.loads((tmp_path / "bad.json").read_text())
            edit(content)
            (tmp_path / "bad.json").write_text(json.dumps(content))
        cfg = tiny_config(num_classes)
        for split in (cfg.DATASETS.COCO.TRAIN, cfg.DATASETS.COCO.TEST):
            split.JSON, split.IMAGES = str(tmp_path / "bad.json"), str(tmp_path)
        cfg.SOLVER.IMS_PER_BATCH = max(1, len(images))
        return cfg

    return make


def tiny_config(num_classes=None):
    """A FocalRetinaNet of a ResNet-18 with narrow P3-P7."""
    cfg = get_cfg()
    add_retina_config(cfg)
    cfg.MODEL.META_ARCHITECTURE = "FocalRetinaNet"
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 32
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "OctaveAnchorGenerator"
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    cfg.MODEL.RETINANET.NUM_CONVS = 1
    cfg.MODEL.RETINANET.NUM_CLASSES = num_classes
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST = 0.0  # an untrained model shall detect something
    cfg.INPUT.MIN_SIZE_TRAIN = (0,)  # images keep their size
    cfg.INPUT.MIN_SIZE_TEST = 0
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = False
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    return cfg


def prepare(cfg):
    """What `train_net.py` does with the data before it builds the trainer."""
    register_datasets(cfg)
    return check_datasets(cfg, train=True)


def train_a_step(cfg):
    """One step of SGD; returns the model, and the batch by image id."""
    batch = next(iter(build_detection_train_loader(cfg, mapper=RetinaDatasetMapper(cfg, True))))
    torch.manual_seed(0)
    model = build_model(cfg)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    losses = model(batch)
    assert losses.keys() == {"loss_cls", "loss_box_reg"}
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    optimizer.step()
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    return model, {given["image_id"]: given for given in batch}


def evaluate(cfg, model, tmp_path):
    (name,) = cfg.DATASETS.TEST
    loader = build_detection_test_loader(cfg, name)
    evaluator = COCOEvaluator(name, output_dir=str(tmp_path / "out"), use_fast_impl=False)
    return inference_on_dataset(model, loader, evaluator)["bbox"]


def refusal(cfg):
    with pytest.raises(DataError) as error:
        prepare(cfg)
    return str(error.value)


GOOD = ((4, 6, 36, 40), 1, False)


# ---- right


def test_image_without_boxes(make, tmp_path):
    cfg = make([[], [GOOD]])
    findings = prepare(cfg)
    assert any("images without boxes (1)" in str(x) for x in findings)
    model, batch = train_a_step(cfg)
    assert [len(batch[i]["instances"]) for i in sorted(batch)] == [0, 1]
    assert np.isfinite(evaluate(cfg, model, tmp_path)["AP"])


def test_only_images_without_boxes_in_the_batch(make):
    cfg = make([[], [], [GOOD]])
    prepare(cfg)
    model = build_model(cfg)
    records = [x for x in DatasetCatalog.get("bad") if not x["annotations"]]
    losses = model([RetinaDatasetMapper(cfg, True)(record) for record in records])
    sum(losses.values()).backward()
    assert losses["loss_box_reg"] == 0
    assert torch.isfinite(losses["loss_cls"])


def test_crowd_box_is_not_trained_on_and_ignored_in_evaluation(make, tmp_path):
    crowd = ((2, 2, 60, 44), 1, True)
    cfg = make([[GOOD, crowd], [crowd]])
    findings = prepare(cfg)
    assert any("crowd boxes (2)" in str(x) for x in findings)
    _, batch = train_a_step(cfg)
    assert [batch[i]["instances"].gt_classes.tolist() for i in sorted(batch)] == [[1], []]
    assert evaluate(cfg, Oracle("bad"), tmp_path)["AP"] == pytest.approx(100)


@pytest.mark.parametrize(
    "odd", [(10, 10, 10, 20), (10, 10, 20, 10), (70, 5, 90, 20), (5, -30, 20, -2)]
)
def test_degenerate_or_outside_box_is_dropped_with_a_warning(odd, make):
    cfg = make([[GOOD, (odd, 0, False)], [(odd, 2, False)]])
    warnings = [x for x in prepare(cfg) if x.level == logging.WARNING]
    assert {x.count for x in warnings} == {2}  # for training and for evaluation
    _, batch = train_a_step(cfg)
    assert [batch[i]["instances"].gt_classes.tolist() for i in sorted(batch)] == [[1], []]


def test_box_partly_outside_is_clipped(make):
    cfg = make([[((-20, 10, 30, 90), 0, False)]])
    assert not [x for x in prepare(cfg) if x.level >= logging.WARNING]
    cfg.INPUT.RANDOM_FLIP = "none"
    _, batch = train_a_step(cfg)
    assert batch[1]["instances"].gt_boxes.tensor.tolist() == [[0, 10, 30, 48]]


def test_category_ids_with_gaps(make, tmp_path):
    ids = {1: 90, 2: 7, 3: 1000}

    def edit(content):
        for entry in content["categories"]:
            entry["id"] = ids[entry["id"]]
        for entry in content["annotations"]:
            entry["category_id"] = ids[entry["category_id"]]

    cfg = make([[((4, 6, 36, 40), i, False)] for i in range(3)], edit=edit)
    prepare(cfg)
    assert MetadataCatalog.get("bad").thing_classes == ["dog", "cat", "elk"]  # by id: 7, 90, 1000
    _, batch = train_a_step(cfg)
    assert [batch[i]["instances"].gt_classes.item() for i in sorted(batch)] == [1, 0, 2]
    scores = evaluate(cfg, Oracle("bad"), tmp_path)
    assert [scores[f"AP-{name}"] for name in ("cat", "dog", "elk")] == pytest.approx([100] * 3)
    written = json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())
    assert sorted(x["category_id"] for x in written) == [7, 90, 1000]


@pytest.mark.parametrize("size", [(40, 36), (33, 64)])
def test_level_too_small_for_its_anchors(size, make, tmp_path):
    """P7 is one cell, its smallest anchor 512 px: larger than the image."""
    cfg = make([[((2, 2, 30, 33), 0, False)], [GOOD]], size=size)
    prepare(cfg)
    model, _ = train_a_step(cfg)
    assert np.isfinite(evaluate(cfg, model, tmp_path)["AP"])


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (7, 60), (130, 2)])
def test_image_smaller_than_the_stride(size, make, tmp_path):
    cfg = make([[((0, 0, *size), 0, False)]] * 2, size=size)
    prepare(cfg)
    model, batch = train_a_step(cfg)
    assert batch[1]["image"].shape[1:] == size[::-1]
    assert np.isfinite(evaluate(cfg, model, tmp_path)["AP"])
    model.eval()
    (found,) = model([{**batch[1], "width": size[0], "height": size[1]}])
    boxes = found["instances"].pred_boxes.tensor
    assert len(boxes)
    assert (boxes[:, 2] <= size[0]).all() and (boxes[:, 3] <= size[1]).all()


def test_annotation_id_0_is_lost_in_evaluation_as_the_warning_says(make, tmp_path):
    cfg = make([[GOOD], [GOOD]], edit=lambda c: c["annotations"][0].update(id=0))
    (warning,) = [str(x) for x in prepare(cfg) if x.level == logging.WARNING]
    assert "annotation 0 of image 1" in warning
    assert evaluate(cfg, Oracle("bad"), tmp_path)["AP"] < 60


# ---- a clear error before training starts


def test_missing_image(make, tmp_path):
    cfg = make([[GOOD], [GOOD]])
    (tmp_path / "1.png").unlink()
    message = refusal(cfg)
    assert "image files that do not exist (1)" in message
    assert str(tmp_path / "1.png") in message


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated_image(suffix, make, tmp_path):
    cfg = make([[GOOD], [GOOD]], suffix=suffix)
    path = tmp_path / f"1.{suffix}"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    message = refusal(cfg)
    assert "image files that cannot be read (1)" in message
    assert str(path) in message


@pytest.mark.parametrize("edit", [lambda c: c.pop("categories"), lambda c: c["categories"].clear()])
def test_json_without_categories(edit, make, tmp_path):
    message = refusal(make([[GOOD]], edit=edit))
    assert str(tmp_path / "bad.json") in message
    assert 'must have "categories", a list of objects' in message


def test_num_classes_too_small(make, tmp_path):
    message = refusal(make([[GOOD]], num_classes=2))
    assert "MODEL.RETINANET.NUM_CLASSES: is 2, but" in message
    assert str(tmp_path / "bad.json") in message and "3 classes (cat, dog, elk)" in message
    assert "Set it to 3" in message


def test_num_classes_too_small_for_a_data_set_of_python(make):
    cfg = make([[((4, 6, 36, 40), 2, False)]])
    register_datasets(cfg)
    records = DatasetCatalog.get("bad")
    DatasetCatalog.register("python", lambda: records)  # no json, no metadata: only the boxes tell
    cfg = tiny_config(num_classes=2)
    cfg.DATASETS.TRAIN = ("python",)
    message = refusal(cfg)
    assert "category_id is not from 0 to MODEL.RETINANET.NUM_CLASSES - 1 (1)" in message
    assert "box 1 of image 1" in message


def test_zero_training_images(make):
    assert "DATASETS.TRAIN: 'bad' has no images" in refusal(make([]))


@pytest.mark.parametrize("filtered", [True, False])
def test_zero_images_with_a_box(filtered, make):
    cfg = make([[], [((2, 2, 60, 44), 1, True)]])
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = filtered
    assert "no image of bad has a usable box" in refusal(cfg)


def test_box_of_negative_width(make):
    message = refusal(make([[((36, 6, 4, 40), 1, False)]]))
    assert "boxes of negative width or height (1)" in message and "[36.0, 6.0, -32.0" in message


def test_not_a_number(make):
    cfg = make([[GOOD]], edit=lambda c: c["annotations"][0].update(bbox=[1, 2, float("nan"), 4]))
    assert "annotation 1 of image 1 has bbox [1, 2, nan, 4]" in refusal(cfg)
