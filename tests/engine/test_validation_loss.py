"""Validation losses are the detector's own, and leave no trace in it or in its detections."""

import json
from pathlib import Path

import pytest
import torch
from detectron2.data import build_detection_test_loader
from support.block_data import write_blocks
from support.tiny_training import tiny_training_cfg
from support.workers import on_workers

from retina_plugin.data.coco_registration import register_datasets
from retina_plugin.data.mapper import RetinaDatasetMapper
from retina_plugin.engine.trainer import RetinaTrainer
from retina_plugin.modeling.batch_inputs import ground_truth_of
from retina_plugin.modeling.normalizers.fixed_normalizer import FixedNormalizer

LOSSES = {"loss_cls", "loss_box_reg", "total_loss"}


@pytest.fixture
def cfg(tmp_path):
    return tiny_training_cfg(tmp_path)


def edit(cfg, change):
    """Let ``change`` loose on the test set's json, and register it under another name."""
    coco = cfg.DATASETS.COCO.TEST
    content = json.loads(Path(coco.JSON).read_text())
    change(content)
    Path(coco.JSON).with_name("changed.json").write_text(json.dumps(content))
    coco.JSON = str(Path(coco.JSON).with_name("changed.json"))
    cfg.DATASETS.TEST = ()
    register_datasets(cfg)
    return cfg


def build(cfg):
    """Untrained; its box predictions not all 0."""
    torch.manual_seed(3)
    return RetinaTrainer.build_model(cfg)


def as_training_would(cfg, model, name):
    """The losses of the data set's images in training mode, one by one, over all positives."""
    model.train()
    own, model.normalizer = model.normalizer, FixedNormalizer(value=1.0)
    loader = build_detection_test_loader(
        cfg, name, mapper=RetinaDatasetMapper(cfg, is_train=False, keep_ground_truth=True)
    )
    sums, positives = {}, 0
    with torch.no_grad():
        for batch in loader:
            for loss, value in model(batch).items():
                sums[loss] = sums.get(loss, 0.0) + value.item()
            positives += positives_of(model, batch)
    model.normalizer = own
    losses = {loss: value / max(positives, 1) for loss, value in sums.items()}
    return {**losses, "total_loss": sum(losses.values())}


def positives_of(model, batch):
    predictions = model.predict(model.preprocess_image(batch))
    truth = [ground_truth_of(x, model.num_classes, model.device) for x in batch]
    return len(model.assign(predictions, truth).positives)


def empty_the_first_image(content):
    first = content["images"][0]["id"]
    content["annotations"] = [x for x in content["annotations"] if x["image_id"] != first]


def make_the_first_box_a_crowd(content):
    content["annotations"][0]["iscrowd"] = 1


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("change", [lambda x: None, empty_the_first_image])
def test_they_are_the_detectors(cfg, change, optimize):
    cfg.TEST.OPTIMIZE = optimize
    edit(cfg, change)
    model = build(cfg)
    found = RetinaTrainer.test(cfg, model)["validation"]
    assert found.keys() == LOSSES
    assert found == pytest.approx(as_training_would(cfg, model, "changed"), rel=1e-4)


def test_crowds_are_ignored_where_training_ignores_them(cfg):
    edit(cfg, make_the_first_box_a_crowd)
    model = build(cfg)
    with torch.no_grad():
        model.head.cls_score.bias.fill_(3.0)  # sure that all is an object: background costs
    counted = RetinaTrainer.test(cfg, model)["validation"]["loss_cls"]
    cfg.INPUT.IGNORE_CROWD = True
    found = RetinaTrainer.test(cfg, model)["validation"]
    assert found["loss_cls"] < counted * 0.999
    assert found == pytest.approx(as_training_would(cfg, model, "changed"), rel=1e-4)


def results_file(cfg):
    return Path(cfg.OUTPUT_DIR, "inference/test/coco_instances_results.json").read_text()


@pytest.mark.parametrize("optimize", [True, False])
def test_detections_are_the_same_to_the_bit(cfg, optimize):
    cfg.TEST.OPTIMIZE = optimize
    model = build(cfg)
    results = RetinaTrainer.test(cfg, model)
    detections = results_file(cfg)
    cfg.TEST.VALIDATION_LOSS = False
    assert RetinaTrainer.test(cfg, model) == {"bbox": pytest.approx(results["bbox"], nan_ok=True)}
    assert results_file(cfg) == detections != "[]"


def test_the_detectors_state_stays(cfg):
    """Counts of the equalized loss, the normalizer's average, batch norm, and the methods."""
    cfg.TEST.OPTIMIZE = False
    cfg.MODEL.RETINANET.NORM = "BN"
    cfg.MODEL.RETINANET.CLS_LOSS.NAME = "EqualizedFocalLoss"
    model = build(cfg).train()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    assert {"normalizer.average", "cls_loss.positive_gradients"} <= before.keys()
    methods = set(vars(model))
    assert RetinaTrainer.test(cfg, model)["validation"].keys() == LOSSES
    assert model.training and set(vars(model)) == methods
    for name, x in model.state_dict().items():
        assert torch.equal(x, before[name]), name
    assert all(p.grad is None for p in model.parameters())


def test_several_test_sets_each_have_theirs(cfg, tmp_path):
    other = write_blocks(tmp_path / "more", "other", 3, seed=5)
    coco = cfg.DATASETS.COCO.TEST
    coco.JSON = [coco.JSON, str(other.json)]
    coco.IMAGES = [coco.IMAGES, str(other.images)]
    coco.NAME = ["first", "second"]
    cfg.DATASETS.TEST = ()
    register_datasets(cfg)
    model = build(cfg)
    results = RetinaTrainer.test(cfg, model)
    for name in ("first", "second"):
        expected = as_training_would(cfg, model, name)
        assert results[name]["validation"] == pytest.approx(expected, rel=1e-4)


def test_by_tiles_there_are_none(cfg):
    cfg.INPUT.TILES.TEST_SIZE, cfg.INPUT.TILES.TEST_OVERLAP = 64, 32
    assert RetinaTrainer.test(cfg, build(cfg)).keys() == {"bbox"}


def test_classes_that_the_detector_has_not(cfg, caplog):
    """It can be evaluated on them, but not learn them."""
    cfg.MODEL.RETINANET.NUM_CLASSES = 2
    model = build(cfg)
    with caplog.at_level("WARNING"):
        assert "validation" not in RetinaTrainer.test(cfg, model)
    assert "No validation loss of test: " in caplog.text and "a class 2" in caplog.text


class ByDistance(torch.nn.Module):
    """Somebody's box loss."""

    def forward(self, positives):
        return positives.field("gt_distance")


def test_losses_that_need_what_a_test_set_does_not_have(cfg, caplog):
    """The evaluation goes on."""
    cfg.DATASETS.COCO.EXTRA_ANNOTATION_KEYS = ["distance"]
    model = build(cfg)
    assert RetinaTrainer.test(cfg, model)["validation"].keys() == LOSSES
    model.box_loss = ByDistance()
    with caplog.at_level("WARNING"):
        assert RetinaTrainer.test(cfg, model).keys() == {"bbox"}
    assert "its losses need what test sets lack: the ground truth has no field" in caplog.text


def test_the_trained_and_the_averaged_weights_have_theirs(cfg):
    cfg.SOLVER.WEIGHT_AVERAGE.DECAY, cfg.SOLVER.WEIGHT_AVERAGE.EVALUATE_BOTH = 0.9, True
    cfg.VIS_PERIOD = 1
    torch.manual_seed(0)
    trainer = RetinaTrainer(cfg)
    results = trainer.train()
    assert results["raw"]["validation"].keys() == results["validation"].keys() == LOSSES
    assert results["raw"]["validation"] != results["validation"]
    line = Path(cfg.OUTPUT_DIR, "metrics.json").read_text().splitlines()[-1]
    assert json.loads(line)["validation/total_loss"] == results["validation"]["total_loss"]


def evaluate_half(rank, folder):
    cfg = tiny_training_cfg(Path(folder) / str(rank))
    cfg.MODEL.DEVICE = "cpu"
    return dict(RetinaTrainer.test(cfg, build(cfg))).get("validation")


def test_two_workers_find_what_one_does(tmp_path):
    """The same two images, one each."""
    first, second = on_workers(2, tmp_path, evaluate_half, str(tmp_path))
    assert second is None
    assert first == pytest.approx(evaluate_half(0, tmp_path / "alone"), rel=1e-5)
