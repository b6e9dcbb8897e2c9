"""Checkpoint files of Detectron2's RetinaNet load into ours, and ours into Detectron2's."""

import pickle

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from support.batches import make_batch
from support.model_pairs import assert_same_detections, assert_same_step, build_pair
from support.tiny_models import tiny_cfg


@pytest.fixture
def batch():
    return make_batch()


def build(cfg, name):
    cfg = cfg.clone()
    cfg.MODEL.META_ARCHITECTURE = name
    return build_model(cfg)


def load(model, path):
    """What ``DetectionCheckpointer.load`` reports as wrong, as it prints it."""
    checkpointer = DetectionCheckpointer(model)
    reports = []
    checkpointer.logger = _Recorder(checkpointer.logger, reports)
    checkpointer.load(str(path))
    return reports


class _Recorder:
    """A logger that keeps the warnings."""

    def __init__(self, logger, warnings):
        self._logger = logger
        self._warnings = warnings

    def __getattr__(self, name):
        return getattr(self._logger, name)

    def warning(self, message, *_):
        self._warnings.append(message)


@pytest.mark.parametrize("norm", ["", "GN", "BN"])
def test_stock_file_loads_by_changing_one_line(tmp_path, batch, norm):
    cfg = tiny_cfg(NORM=norm)
    pair = build_pair(cfg, batch)
    assert_same_step(pair, batch)
    DetectionCheckpointer(pair.stock, str(tmp_path)).save("model_final")

    pair.ours = build(cfg, "FocalRetinaNet")
    assert load(pair.ours, tmp_path / "model_final.pth") == []
    assert_same_detections(pair, batch)


def test_zoo_style_pickle_loads(tmp_path, batch):
    """The zoo's files are pickles of numpy arrays."""
    cfg = tiny_cfg()
    pair = build_pair(cfg, batch)
    arrays = {name: value.numpy() for name, value in pair.stock.state_dict().items()}
    path = tmp_path / "model_final_5bd44e.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"}))

    pair.ours = build(cfg, "FocalRetinaNet")
    assert load(pair.ours, path) == []
    assert_same_detections(pair, batch)


def test_backbone_only_pickle_reports_the_head_alone(tmp_path, batch):
    """Files of ImageNet weights are matched by heuristics; only the head then has no weights."""
    cfg = tiny_cfg()
    pair = build_pair(cfg, batch)
    arrays = {name: x.numpy() for name, x in pair.stock.backbone.bottom_up.state_dict().items()}
    path = tmp_path / "R-50.pkl"
    path.write_bytes(
        pickle.dumps({"model": arrays, "matching_heuristics": True, "__author__": "x"})
    )

    ours, stock = build(cfg, "FocalRetinaNet"), build(cfg, "RetinaNet")
    reports = load(ours, path)
    assert reports == load(stock, path)
    assert "normalizer" not in "".join(reports)
    assert torch.equal(
        ours.backbone.bottom_up.res3.weight, pair.stock.backbone.bottom_up.res3.weight
    )


def test_our_file_loads_into_stock(tmp_path, batch):
    cfg = tiny_cfg(NORM="GN")
    pair = build_pair(cfg, batch)
    DetectionCheckpointer(pair.ours, str(tmp_path)).save("model_final")

    pair.stock = build(cfg, "RetinaNet")
    (report,) = load(pair.stock, tmp_path / "model_final.pth")
    assert "normalizer" in report  # stock has no place for the average, and says so
    assert "not used by the model" in report
    assert_same_detections(pair, batch)


def test_average_survives_a_resume(tmp_path, batch):
    cfg = tiny_cfg()
    pair = build_pair(cfg, batch)
    assert_same_step(pair, batch)
    DetectionCheckpointer(pair.ours, str(tmp_path)).save("model_0000001")
    stock_average = pair.stock.loss_normalizer

    pair.ours = build(cfg, "FocalRetinaNet")
    assert load(pair.ours, tmp_path / "model_0000001.pth") == []
    assert pair.ours.normalizer.average.item() == pytest.approx(stock_average, rel=1e-6)
    assert_same_step(pair, batch)  # stock never stopped


def test_missing_weights_are_reported(tmp_path, batch):
    """The silence above means something: a file without a tower is reported."""
    cfg = tiny_cfg()
    state = build(cfg, "RetinaNet").state_dict()
    torch.save({k: v for k, v in state.items() if "cls_subnet" not in k}, tmp_path / "part.pth")
    (report,) = load(build(cfg, "FocalRetinaNet"), tmp_path / "part.pth")
    assert "cls_subnet" in report
