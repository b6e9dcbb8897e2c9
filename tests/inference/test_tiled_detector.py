"""By tiles the same is found as in the whole image, in memory that does not grow with it."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.modeling import build_model
from detectron2.modeling.meta_arch import RetinaNet
from support.batches import make_batch, make_image
from support.block_finder import BlockFinder
from support.model_pairs import build_pair
from support.tiny_models import tiny_cfg, tiny_focal_cfg

from retina_plugin import TiledDetector, optimize_for_inference
from retina_plugin.workbench.benchmark.calibration import calibrate
from retina_plugin.workbench.benchmark.memory import peak_memory


def blocks(height, width, *, largest, count=60, channels=3):
    """An image of blocks that do not touch, in places of a coarse grid; each has its own value."""
    image = torch.zeros(channels, height, width, dtype=torch.uint8)
    cell = largest + 2
    cells = [(y, x) for y in range(0, height - cell, cell) for x in range(0, width - cell, cell)]
    for value, place in enumerate(torch.randperm(len(cells))[:count].tolist(), start=1):
        h, w = torch.randint(4, largest + 1, (2,)).tolist()
        y = cells[place][0] + int(torch.randint(cell - h, ()))
        x = cells[place][1] + int(torch.randint(cell - w, ()))
        image[:, y : y + h, x : x + w] = value
    return image


def by_value(found):
    order = found.scores.argsort()
    return found.pred_boxes.tensor[order], found.scores[order], found.pred_classes[order]


def assert_equal(found, expected):
    assert found.image_size == expected.image_size
    assert len(found) == len(expected) > 0
    for a, b in zip(by_value(found), by_value(expected), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("size", [(512, 512), (300, 701), (997, 130), (129, 128)])
def test_finds_each_object_once_and_whole(size, batch):
    finder = BlockFinder().eval()
    tiled = TiledDetector(finder, size=128, overlap=40, batch=batch)
    given = {"image": blocks(*size, largest=40), "file_name": "x.png"}
    (found,) = tiled([given])
    assert all(len(shapes) <= batch for shapes in finder.batches)
    assert max(side for shapes in finder.batches for shape in shapes for side in shape) == 128
    assert len(finder.batches[0]) == min(batch, sum(map(len, finder.batches)))
    assert_equal(found["instances"], BlockFinder().find(given))


def test_images_of_a_batch_of_any_size_and_channels():
    inputs = [
        {"image": blocks(200, 310, largest=30), "height": 400, "width": 155},
        {"image": blocks(100, 128, largest=30, count=6, channels=1)},
        {"image": blocks(150, 90, largest=30, channels=1), "height": 100, "width": 101},
        {"image": blocks(64, 64, largest=30, count=2), "height": 32, "width": 32},
        {"image": torch.zeros(3, 300, 300, dtype=torch.uint8)},
    ]
    *found, nothing = TiledDetector(BlockFinder().eval(), size=128, overlap=40, batch=3)(inputs)
    for output, given in zip(found, inputs, strict=False):
        assert_equal(output["instances"], BlockFinder().find(given))
    assert len(nothing["instances"]) == 0 and nothing["instances"].image_size == (300, 300)


def test_boxes_that_are_a_little_off_in_each_tile():
    """Each object once, none left by one tile to the other."""
    given = {"image": blocks(700, 700, largest=48, count=100)}
    expected = by_value(BlockFinder().find(given))
    (found,) = TiledDetector(BlockFinder(noise=1.0).eval(), size=160, overlap=64)([given])
    found = by_value(found["instances"])
    assert torch.equal(found[1], expected[1])
    assert (found[0] - expected[0]).abs().max() <= 1


def test_objects_larger_than_the_overlap_are_not_lost():
    given = {"image": blocks(640, 640, largest=150, count=12)}
    (found,) = TiledDetector(BlockFinder().eval(), size=128, overlap=16)([given])
    boxes, scores, _ = by_value(found["instances"])
    for box, score in zip(*by_value(BlockFinder().find(given))[:2], strict=True):
        parts = boxes[scores == score]
        pixels = torch.zeros(640, 640, dtype=torch.bool)
        for x0, y0, x1, y1 in parts.int().tolist():
            pixels[y0:y1, x0:x1] = True
        x0, y0, x1, y1 = box.int().tolist()
        assert pixels.sum() == (y1 - y0) * (x1 - x0) and pixels[y0:y1, x0:x1].all()


def test_what_the_detector_leaves_side_by_side_stays():
    """As after soft-NMS: a second suppression would drop the lesser of each pair."""
    given = {"image": blocks(400, 400, largest=40)}
    finder = BlockFinder(twins=True).eval()
    (found,) = TiledDetector(finder, size=128, overlap=48)([given])
    assert len(found["instances"]) == 2 * len(given["image"].unique()[1:])


def test_keeps_the_best_as_many_as_the_detector_would():
    given = {"image": blocks(400, 400, largest=40)}
    finder = BlockFinder().eval()
    finder.post_processor.max_detections = 7
    (found,) = TiledDetector(finder, size=128, overlap=48)([given])
    # best first, too
    assert torch.equal(found["instances"].scores, BlockFinder().find(given).scores.flip(0)[:7])


def test_class_agnostic():
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 2)
    for agnostic, kept in ((False, [1, 0]), (True, [1])):
        finder = BlockFinder().eval()
        finder.post_processor.class_agnostic = agnostic
        tiled = TiledDetector(finder, size=128, overlap=8)
        found = finder.find({"image": torch.tensor([[[1, 2]]])})
        found.pred_boxes.tensor = boxes
        assert tiled._merge(found, [1, 1]).tolist() == kept


# ---- networks


@pytest.mark.parametrize("detector", ["ours", "stock", "optimized"])
@torch.no_grad()
def test_where_one_tile_covers_the_images_nothing_changes(detector):
    batch = make_batch(counts=(3, 3, 3), sizes=((96, 160), (128, 77), (40, 33)))
    batch[0].update(height=500, width=801)
    pair = build_pair(tiny_cfg(NORM="GN"), batch).train(False)
    model = {
        "ours": pair.ours,
        "stock": pair.stock,
        "optimized": optimize_for_inference(pair.ours),
    }[detector]
    tiled = TiledDetector(model, size=160, overlap=32)
    for expected, found in zip(model(batch), tiled(batch), strict=True):
        expected, found = expected["instances"], found["instances"]
        assert len(found) > 5 and found.image_size == expected.image_size
        assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
        assert torch.equal(found.scores, expected.scores)
        assert torch.equal(found.pred_classes, expected.pred_classes)


@pytest.mark.parametrize("stock", [False, True])
@torch.no_grad()
def test_a_network_that_sees_less_than_half_the_overlap_finds_the_same(stock):
    """P3 and P4 without norms: what a cell sees ends before the tile does."""
    settings = {"IN_FEATURES": ["p3", "p4"], "NUM_CONVS": 1, "TOPK_CANDIDATES_TEST": 100_000}
    cfg = tiny_cfg(**settings) if stock else tiny_focal_cfg(**settings)
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[16], [32]]
    cfg.TEST.DETECTIONS_PER_IMAGE = 400
    model = build_model(cfg).eval()
    given = {"image": make_image(700, 937), "height": 350, "width": 1400}
    calibrate(model, [given])
    (expected,), (found,) = model([given]), TiledDetector(model, size=512, overlap=256)([given])
    expected, found = expected["instances"], found["instances"]
    assert isinstance(model, RetinaNet) is stock
    assert len(found) == len(expected) == 400
    torch.testing.assert_close(found.scores, expected.scores, atol=1e-5, rtol=0)
    same = (found.pred_boxes.tensor[:, None] - expected.pred_boxes.tensor).abs().amax(2) < 1e-2
    same &= found.pred_classes[:, None] == expected.pred_classes
    assert same.any(0).float().mean() > 0.99 and same.any(1).float().mean() > 0.99


@torch.no_grad()
def test_memory_does_not_grow_with_the_image():
    """Live tensors beside the image: of one tile, whatever the image; the whole one's would be."""
    model = optimize_for_inference(build_model(tiny_focal_cfg(NORM="GN")))
    tiled = TiledDetector(model, size=256, overlap=64)
    peaks = [
        peak_memory(lambda image=image: tiled([{"image": image}]), torch.device("cpu"))
        for image in (make_image(300, 300), make_image(1500, 1500))
    ]
    assert peaks[1] < 1.05 * peaks[0]
    as_floats = 4 * 3 * 1500 * 1500
    assert peaks[1] < as_floats / 2


RESIDENT = """
import re, sys
from pathlib import Path
import torch
from detectron2.modeling import build_model
from support.tiny_models import tiny_focal_cfg
from retina_plugin import TiledDetector, optimize_for_inference

def peak():  # kB; ru_maxrss would begin with the parent's
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])

cfg = tiny_focal_cfg(IN_FEATURES=["p4"], NUM_CONVS=1)
cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32]]
tiled = TiledDetector(optimize_for_inference(build_model(cfg)), size=512, overlap=64)
with torch.no_grad():
    tiled([{"image": torch.zeros(3, 600, 600, dtype=torch.uint8)}])
    image = torch.randint(256, (3, 3000, 3000), dtype=torch.uint8)
    before = peak()
    tiled([{"image": image}])
print(peak() - before, peak())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measured under Linux")
def test_a_process_takes_in_the_image_and_little_more():
    """A 10,000 px image must do with 4 GB, one of 3,000 px with 0.09 of that."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RESIDENT],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
    )
    added, peak = (1024 * int(x) for x in done.stdout.split())
    as_floats = 4 * 3 * 3000 * 3000
    assert added < as_floats / 2
    assert peak < 0.09 * 4e9 + 0.8e9  # which torch and Detectron2 take without any image


def test_keeps_no_activations_for_a_backward_pass():
    model = build_model(tiny_focal_cfg(SCORE_THRESH_TEST=0.0)).eval()
    (found,) = TiledDetector(model, size=96, overlap=32)([{"image": make_image(100, 90)}])
    assert len(found["instances"]) == 100 and not found["instances"].scores.requires_grad


# ---- mistakes and forms


def test_built_by_a_lazy_config():
    tiled = instantiate(L(TiledDetector)(detector=L(BlockFinder)(), size=64, overlap=8, batch=2))
    assert tiled.size == 64 and tiled.training
    assert not tiled.eval().detector.training


def test_settings_are_the_detectors_own():
    cfg = tiny_cfg(NMS_THRESH_TEST=0.37)
    cfg.TEST.DETECTIONS_PER_IMAGE = 33
    pair = build_pair(cfg, make_batch())
    for model in (pair.stock, pair.ours):
        tiled = TiledDetector(model, size=256)
        assert (tiled.nms_thresh, tiled.max_detections, tiled.class_agnostic) == (0.37, 33, False)
        assert tiled.stride == 32
    with pytest.raises(ValueError, match=r"Identity has neither post_processor.nms_thresh nor"):
        TiledDetector(torch.nn.Identity(), size=256)
    assert (
        TiledDetector(torch.nn.Identity(), size=256, nms_thresh=0.5, max_detections=9).stride == 1
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, r"INPUT.TILES.TEST_SIZE .* got 0"),
        (
            {"size": 128, "overlap": 128},
            r"OVERLAP .* less than TEST_SIZE 128, got 128: set it",
        ),
        ({"size": 128, "overlap": -1}, r"TEST_OVERLAP .* got -1"),
        ({"size": 128, "overlap": 8, "batch": 0}, r"TEST_BATCH .* got 0"),
    ],
)
def test_refuses(settings, message):
    with pytest.raises(ValueError, match=message):
        TiledDetector(BlockFinder(), **settings)


def test_is_not_for_training():
    with pytest.raises(ValueError, match=r"in training: call eval\(\) first.*TILES.TRAIN_SIZE"):
        TiledDetector(BlockFinder(), size=256)([{"image": make_image(300, 300)}])
