"""Detections equal to Detectron2's under every setting of inference."""

import pytest
import torch
from support.batches import make_batch, make_image
from support.model_pairs import assert_same_detections, build_pair
from support.tiny_models import tiny_cfg


@pytest.fixture(scope="module")
def batch():
    torch.manual_seed(0)
    return make_batch((3, 0, 1), sizes=((96, 160), (128, 96), (64, 64)))


def detections_are_equal(batch, *, at_least=10, test=None, **retinanet):
    cfg = tiny_cfg(**retinanet)
    cfg.TEST.DETECTIONS_PER_IMAGE = test or 100
    pair = build_pair(cfg, batch)
    assert_same_detections(pair, batch, at_least=at_least)
    with torch.no_grad():
        return [x["instances"] for x in pair.ours(batch)]


@pytest.mark.parametrize("threshold", [0.0, 0.01, 0.05, 0.1, 0.3])
def test_score_thresholds(batch, threshold):
    found = detections_are_equal(batch, SCORE_THRESH_TEST=threshold, at_least=1)
    assert all(x.scores.min() > threshold for x in found)


def test_threshold_zero_keeps_low_scores(batch):
    found = detections_are_equal(batch, SCORE_THRESH_TEST=0.0, TOPK_CANDIDATES_TEST=3000, test=3000)
    assert all(x.scores.min() < 0.05 for x in found)


def test_threshold_one_keeps_nothing(batch):
    found = detections_are_equal(batch, SCORE_THRESH_TEST=1.0, at_least=0)
    assert all(len(x) == 0 for x in found)


@pytest.mark.parametrize("topk", [0, 1, 10, 1000])
def test_candidates_per_level(batch, topk):
    detections_are_equal(batch, TOPK_CANDIDATES_TEST=topk, at_least=min(topk, 5))


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_nms_thresholds(batch, threshold):
    detections_are_equal(batch, NMS_THRESH_TEST=threshold)


@pytest.mark.parametrize("count", [0, 1, 7, 1000])
def test_detections_per_image(batch, count):
    cfg = tiny_cfg()
    cfg.TEST.DETECTIONS_PER_IMAGE = count
    pair = build_pair(cfg, batch)
    assert_same_detections(pair, batch, at_least=0 if count < 10 else 10)


def test_scaled_to_the_size_asked_for(batch):
    asked = [{**x, "height": 300, "width": 77} for x in batch]
    pair = build_pair(tiny_cfg(), batch)
    assert_same_detections(pair, asked)
    with torch.no_grad():
        found = pair.ours(asked)[0]["instances"]
    assert found.image_size == (300, 77)
    assert found.pred_boxes.tensor[:, 3].max() > 160  # beyond the input's 96 pixels


def test_ties_keep_their_order(batch):
    """Equal scores everywhere: order and selection must not depend on how candidates are found."""
    pair = build_pair(tiny_cfg(TOPK_CANDIDATES_TEST=50), batch)
    for model in (pair.stock, pair.ours):
        torch.nn.init.zeros_(model.head.cls_score.weight)
        torch.nn.init.zeros_(model.head.cls_score.bias)
    assert_same_detections(pair, batch, at_least=1)
    with torch.no_grad():
        assert pair.ours(batch)[0]["instances"].scores.unique().tolist() == [0.5]


def test_bare_image():
    pair = build_pair(tiny_cfg(), make_batch()).train(False)
    one = [{"image": make_image(64, 64)}]  # neither instances nor sizes
    assert_same_detections(pair, one)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision(batch, dtype):
    """Under autocast the scores are rounded, and a threshold on logits must see the same ones."""
    pair = build_pair(tiny_cfg(), batch)
    with torch.autocast("cpu", dtype=dtype):
        assert_same_detections(pair, batch)
