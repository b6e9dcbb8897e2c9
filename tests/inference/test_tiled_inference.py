"""``INPUT.TILES`` from the config to the evaluation's numbers."""

from pathlib import Path

import numpy as np
import pytest
from detectron2.config import get_cfg
from PIL import Image
from support.block_data import COLOURS, as_overrides, write_blocks
from support.block_finder import BlockFinder
from support.tiny_models import tiny_cfg

from retina_plugin import TiledDetector, add_retina_config
from retina_plugin.data.coco_json import CocoDataset, SplitPaths
from retina_plugin.data.coco_registration import register_datasets
from retina_plugin.engine import trainer as engine_trainer
from retina_plugin.engine.arguments import argument_parser
from retina_plugin.engine.setup import setup
from retina_plugin.engine.trainer import RetinaTrainer
from retina_plugin.inference.tiled_inference import prepare_tiles, tile_inference


@pytest.fixture(autouse=True)
def _pillows_limit(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # undone afterwards


@pytest.fixture
def data(tmp_path):
    """Two grey images of 400 x 300 pixels with blocks that the finder finds, class by value."""
    dataset, paths = CocoDataset(list(COLOURS)), SplitPaths.of(tmp_path, "large")
    paths.images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(2):
        image = np.zeros((300, 400), np.uint8)
        image_id = dataset.add_image(f"{index}.png", 400, 300)
        for value in range(1, 25):
            row, column = divmod(value, 5)
            (x, y), (w, h) = rng.integers(20, 30, 2), rng.integers(8, 33, 2)
            box = (column * 75 + x, row * 60 + y - 20, column * 75 + x + w, row * 60 + y - 20 + h)
            image[box[1] : box[3], box[0] : box[2]] = value
            dataset.add_box(image_id, box, value % 3)
        Image.fromarray(image).save(paths.images / f"{index}.png")
    dataset.save(paths.json)
    return paths


@pytest.fixture
def cfg(data, tmp_path):
    cfg = add_retina_config(tiny_cfg(NUM_CLASSES=3))
    cfg.merge_from_list([*as_overrides(data, data), "OUTPUT_DIR", str(tmp_path / "output")])
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.INPUT.FORMAT = "L"
    cfg.INPUT.MIN_SIZE_TEST = 0
    register_datasets(cfg)
    return cfg


@pytest.mark.parametrize("zoomed", [False, True])
def test_evaluation_by_tiles_finds_everything(cfg, zoomed):
    """COCO's evaluator, in the file's pixels, of tiles of the zoomed image."""
    if zoomed:
        cfg.INPUT.AUGMENTATIONS_TEST = [{"NAME": "Resize", "shape": [600, 800], "interp": 0}]
    cfg.TEST.OPTIMIZE = False
    cfg.INPUT.TILES.TEST_SIZE, cfg.INPUT.TILES.TEST_OVERLAP = 128, 66 if zoomed else 40
    cfg.INPUT.TILES.TEST_BATCH = 3
    finder = BlockFinder().eval()
    results = RetinaTrainer.test(cfg, finder)
    assert results["bbox"]["AP"] == pytest.approx(100)
    assert max(side for shapes in finder.batches for s in shapes for side in s[1:]) == 128
    assert max(map(len, finder.batches)) == 3
    assert not finder.training


@pytest.mark.parametrize("optimize", [True, False])
def test_tiles_are_of_the_optimized_copy(cfg, monkeypatch, optimize):
    seen = []
    monkeypatch.setattr(
        engine_trainer.DefaultTrainer, "test", lambda cfg, model, evaluators: seen.append(model)
    )
    cfg.TEST.OPTIMIZE = optimize
    model = RetinaTrainer.build_model(cfg)
    RetinaTrainer.test(cfg, model)
    cfg.INPUT.TILES.TEST_SIZE = 256
    RetinaTrainer.test(cfg, model)
    plain, tiled = seen
    assert type(plain) is type(model) and type(tiled) is TiledDetector
    assert (tiled.detector is model) != optimize
    assert (tiled.size, tiled.overlap, tiled.batch) == (256, 128, 1)
    assert tiled.training == tiled.detector.training


@pytest.mark.parametrize(
    ("size", "limit", "counted"), [(0, 300, 100), (256, 300, 300), (256, 100, 100), (256, 20, 100)]
)
def test_ap_counts_all_detections_of_a_large_image(cfg, size, limit, counted):
    """COCO's own 100 are too few for an image of 300 objects."""
    cfg.INPUT.TILES.TEST_SIZE, cfg.TEST.DETECTIONS_PER_IMAGE = size, limit
    evaluator = RetinaTrainer.build_evaluator(cfg, cfg.DATASETS.TEST[0])
    assert evaluator._max_dets_per_image == [1, 10, counted]


def test_config_without_the_keys():
    model = BlockFinder()
    assert tile_inference(get_cfg(), model) is model
    prepare_tiles(get_cfg())


def test_what_cannot_be_is_refused_before_training(cfg):
    cfg.INPUT.TILES.TEST_SIZE = 128  # TEST_OVERLAP's default
    with pytest.raises(ValueError, match=r"TEST_OVERLAP .* less than TEST_SIZE 128, got 128"):
        prepare_tiles(cfg)
    cfg.INPUT.TILES.TEST_SIZE = -1
    with pytest.raises(ValueError, match=r"TEST_SIZE .* got -1"):
        prepare_tiles(cfg)


def test_a_resize_before_the_tiles_is_said(cfg, caplog):
    cfg.INPUT.TILES.TEST_SIZE = 256
    prepare_tiles(cfg)
    assert caplog.text == ""
    cfg.INPUT.MIN_SIZE_TEST = 800
    prepare_tiles(cfg)
    assert "INPUT.MIN_SIZE_TEST makes their shorter side 800 pixels" in caplog.text
    assert "Set MIN_SIZE_TEST 0" in caplog.text


@pytest.mark.parametrize("key", ["TRAIN_SIZE", "TEST_SIZE"])
def test_large_files_are_no_attack(cfg, monkeypatch, key):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    prepare_tiles(cfg)
    assert Image.MAX_IMAGE_PIXELS == 1000
    cfg.INPUT.TILES[key] = 512
    prepare_tiles(cfg)
    assert Image.MAX_IMAGE_PIXELS is None


def test_train_net_trains_and_evaluates_on_tiles(tmp_path):
    """From a json of whole images, with the words of a user."""
    paths = write_blocks(tmp_path / "data", "all", 2, size=256)
    words = [*as_overrides(paths, paths), "OUTPUT_DIR", str(tmp_path / "output")]
    words += ["SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "0"]
    words += ["INPUT.TILES.TRAIN_SIZE", "128", "INPUT.TILES.TEST_SIZE", "128"]
    words += ["INPUT.TILES.TEST_OVERLAP", "32", "INPUT.IGNORE_CROWD", "True"]
    words += ["INPUT.MIN_SIZE_TEST", "0", "TEST.EVAL_PERIOD", "2", "MODEL.DEVICE", "cpu"]
    config = Path(__file__).parents[2] / "configs" / "quick.yaml"
    cfg = setup(argument_parser().parse_args(["--config-file", str(config), *words]))
    trainer = RetinaTrainer(cfg)
    trainer.resume_or_load(resume=False)
    results = trainer.train()
    assert "AP" in results["bbox"]
    log = (tmp_path / "output/log.txt").read_text()
    assert "INPUT.TILES.TRAIN_SIZE: 2 images are 8 tiles" in log
