"""``TEST.AUG`` from the config to the evaluation's numbers."""

import json

import pytest
from detectron2.config import get_cfg
from support.block_data import as_overrides, write_blocks
from support.block_finder import BlockFinder
from support.tiny_detector import write_tiny_detector

from retina_plugin import AugmentedDetector, TiledDetector
from retina_plugin.config.config_file import load_config
from retina_plugin.data.coco_registration import register_datasets
from retina_plugin.engine import trainer as engine_trainer
from retina_plugin.engine.trainer import RetinaTrainer, evaluate
from retina_plugin.inference.augmented_inference import augment_inference, prepare_augmentation


@pytest.fixture
def cfg(tmp_path):
    trained = write_tiny_detector(tmp_path)
    data = write_blocks(tmp_path / "data", "set", 4)
    words = [*as_overrides(data, data), "MODEL.WEIGHTS", str(trained.weights)]
    words += ["OUTPUT_DIR", str(tmp_path / "output"), "DATALOADER.NUM_WORKERS", "0"]
    words += ["TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "[96]", "TEST.AUG.FLIP", "False"]
    cfg = load_config(trained.config, words)
    register_datasets(cfg)
    return cfg


def test_evaluates_with_and_without(cfg, tmp_path):
    """The only view is the image, so both are equal; each has its files."""
    results = evaluate(cfg, resume=False)
    assert set(results) >= {"bbox", "bbox_TTA"}
    assert results["bbox"]["AP"] == pytest.approx(results["bbox_TTA"]["AP"], abs=1e-6)
    files = [
        json.loads((tmp_path / "output" / x / "set/coco_instances_results.json").read_text())
        for x in ("inference", "inference_TTA")
    ]
    assert len(files[0]) == len(files[1]) > 10


@pytest.mark.parametrize(("periodic", "times"), [(False, [4]), (True, [2, 4])])
def test_a_training_ends_with_it(cfg, tmp_path, periodic, times):
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.IMS_PER_BATCH, cfg.TEST.EVAL_PERIOD = 4, 2, 2
    cfg.TEST.AUG.PERIODIC = periodic
    cfg.SOLVER.WEIGHT_AVERAGE.DECAY, cfg.SOLVER.WEIGHT_AVERAGE.EVALUATE_BOTH = 0.9, True
    trainer = RetinaTrainer(cfg)
    trainer.resume_or_load(resume=False)
    evaluated = {"bbox": [], "bbox_TTA": []}
    test = engine_trainer.DefaultTrainer.test

    def counted(cfg, model, evaluators):
        results = test.__func__(RetinaTrainer, cfg, model, evaluators)
        kind = "bbox_TTA" if isinstance(model, AugmentedDetector) else "bbox"
        evaluated[kind].append(min(trainer.iter + 1, 4))  # after the last step it is 4 already
        return results

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_trainer.DefaultTrainer, "test", counted)
        results = trainer.train()
    assert evaluated == {"bbox": [2, 2, 4, 4], "bbox_TTA": [x for t in times for x in (t, t)]}
    assert set(results) >= {"bbox", "bbox_TTA", "raw", "raw_TTA"}
    assert not any(name.endswith("_TTA_TTA") for name in results)
    lines = [json.loads(x) for x in (tmp_path / "output/metrics.json").read_text().splitlines()]
    assert "bbox_TTA/AP" in lines[-1] and "bbox/AP" in lines[-1]


def test_views_are_of_the_tiles_of_the_optimized_copy(cfg):
    cfg.INPUT.TILES.TEST_SIZE, cfg.INPUT.TILES.TEST_OVERLAP = 64, 16
    cfg.TEST.AUG.FLIP, cfg.TEST.AUG.VOTE_THRESH, cfg.TEST.AUG.BATCH = True, 0.7, 5
    model = RetinaTrainer.build_model(cfg)
    found = augment_inference(cfg, RetinaTrainer.build_detector(cfg, model))
    assert type(found) is AugmentedDetector and type(found.detector) is TiledDetector
    assert found.detector.detector is not model
    assert (found.vote_thresh, found.batch, found.max_detections) == (0.7, 5, 12)
    assert [(x.min_sizes, x.max_size, x.flip) for x in found.views] == [([96], 4000, True)]


def test_config_without_the_keys():
    cfg = get_cfg()
    prepare_augmentation(cfg)
    found = augment_inference(cfg, BlockFinder())
    assert len(found.views) == 9 and (found.vote_thresh, found.batch) == (0.65, 2)


def test_what_cannot_be_is_refused_before_training(cfg):
    cfg.TEST.AUG.VOTE_THRESH = 2.0
    with pytest.raises(ValueError, match=r"TEST.AUG.VOTE_THRESH .* got 2.0"):
        prepare_augmentation(cfg)
    cfg.TEST.AUG.ENABLED = False
    prepare_augmentation(cfg)
