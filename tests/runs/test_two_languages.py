"""The same model from a yaml and from a LazyConfig: one trainer, equal losses and settings."""

import pytest
import torch
from detectron2.data import DatasetCatalog
from support.tiny_lazy_config import write_tiny_lazy_config, write_yaml_twin

from retina_plugin.config.config_file import ConfigKeyError, load_config
from retina_plugin.config.safe_yaml import ConfigFileError
from retina_plugin.engine.arguments import argument_parser
from retina_plugin.engine.setup import setup
from retina_plugin.engine.trainer import RetinaTrainer
from retina_plugin.runs.load_run import load_run, run_of
from retina_plugin.runs.yaml_run import YamlRun

STEPS = 20


@pytest.fixture
def lazy(tmp_path):
    return write_tiny_lazy_config(tmp_path)


class Recording(RetinaTrainer):
    """Keeps the losses and the rate of each step."""

    def run_step(self):
        rate = self.optimizer.param_groups[0]["lr"]
        super().run_step()
        latest = self.storage.latest()
        losses = {k: v[0] for k, v in latest.items() if k.startswith("loss_") or k == "total_loss"}
        vars(self).setdefault("record", []).append((rate, losses))


def trained(config, *overrides):
    arguments = argument_parser().parse_args(["--config-file", str(config), *overrides])
    trainer = Recording(setup(arguments))
    trainer.resume_or_load(resume=False)
    return trainer, trainer.train()


def test_equal_losses_and_results(lazy, tmp_path):
    words = [f"SOLVER.MAX_ITER={STEPS}", "TEST.EVAL_PERIOD=10", "SOLVER.IMS_PER_BATCH=1"]
    ours, results = trained(lazy, *words)
    expected, expected_results = trained(write_yaml_twin(tmp_path, steps=STEPS), *words)
    assert len(ours.record) == STEPS
    assert ours.record == expected.record
    for name, tensor in expected.model.state_dict().items():
        assert torch.equal(ours.model.state_dict()[name], tensor), name
    assert results["validation"] == expected_results["validation"]
    assert results["bbox"] == pytest.approx(expected_results["bbox"], abs=0, nan_ok=True)


def test_equal_settings(lazy, tmp_path):
    """What trainer and tools read says the same, but for the words that describe objects."""
    words = [f"train.max_iter={STEPS}"]
    ours = load_run(lazy, words).settings
    expected = load_run(write_yaml_twin(tmp_path, steps=STEPS)).settings
    described = {"INPUT.AUGMENTATIONS", "INPUT.AUGMENTATIONS_TEST", "MODEL.BACKBONE.NAME"}
    described |= {"OUTPUT_DIR", "DATASETS.TRAIN", "DATASETS.TEST", "SOLVER.LR_SCHEDULER_NAME"}
    described |= {f"DATASETS.COCO.{x}.{y}" for x in ("TRAIN", "TEST") for y in ("JSON", "IMAGES")}
    # what the network is built from
    described |= {f"MODEL.RETINANET.{x}" for x in ("NORM", "NUM_CONVS", "SMOOTH_L1_LOSS_BETA")}
    own, others = (dict(_leaves(x)) for x in (ours, expected))
    different = {key for key in others if _listed(own[key]) != _listed(others[key])}
    assert different <= described


def _listed(value):
    return [_listed(x) for x in value] if isinstance(value, list | tuple) else value


def _leaves(node, above=""):
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


# ---- keys of a yaml in a LazyConfig


def test_a_key_reaches_the_object_that_decides_it(lazy):
    run = load_run(
        lazy,
        [
            *("MODEL.RETINANET.NUM_CLASSES=5", "MODEL.RETINANET.SCORE_THRESH_TEST", "0.3"),
            *("SOLVER.BASE_LR=0.125", "train.max_iter=7", "SEED", 4),
        ],
    )
    model = run.build_model()
    assert (model.num_classes, model.head.cls_score.out_channels) == (5, 45)
    assert model.post_processor.score_thresh == 0.3
    assert run.build_optimizer(model).param_groups[0]["lr"] == 0.125
    assert (run.settings.SOLVER.MAX_ITER, run.settings.SEED) == (7, 4)


def test_settings_in_the_file(lazy):
    lazy.write_text(
        lazy.read_text() + "train.settings = {'TEST.VALIDATION_LOSS': False, 'INPUT': "
        "{'TILES': {'TRAIN_SIZE': 64}}}\n"
    )
    settings = load_run(lazy).settings
    assert settings.TEST.VALIDATION_LOSS is False
    assert settings.INPUT.TILES.TRAIN_SIZE == 64


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'TEST.VALIDATON_LOSS': False}", r"unknown key TEST.VALIDATON_LOSS.*VALIDATION_LOSS"),
        ("{'TEST.VALIDATION_LOSS': 'no'}", r"tiny.py: train.settings: .*VALIDATION_LOSS"),
        ("{'SOLVER.MAX_ITER': 3}", r"has SOLVER.MAX_ITER: set train.max_iter instead"),
        ("{'TEST.BEST.METRIC': 'x'}", r"TEST.BEST.METRIC: set train.best.metric instead"),
        ("{'SOLVER.GAMMA': 0.5}", r"SOLVER.GAMMA 0.5: .*own objects decide"),
    ],
)
def test_settings_that_cannot_be(lazy, line, message):
    lazy.write_text(f"{lazy.read_text()}train.settings = {line}\n")
    with pytest.raises((ConfigKeyError, ConfigFileError), match=message):
        load_run(lazy)


@pytest.mark.parametrize(
    "override", ["MODEL.RETINANET.NUM_CONVS=1", "INPUT.MIN_SIZE_TEST=9", "SOLVER.OPTIMIZER=SGDD"]
)
def test_a_key_that_the_objects_decide_is_refused(lazy, override):
    key, _, value = override.partition("=")
    with pytest.raises(ConfigFileError, match=rf"{key} {value}: .*tiny.py is a LazyConfig"):
        load_run(lazy, [override])


def test_an_unknown_key_lists_near_misses(lazy):
    with pytest.raises(ConfigKeyError, match=r"Did you mean SOLVER\.MAX_ITER"):
        load_run(lazy, ["SOLVER.MAX_ITR=3"])


def test_a_key_without_a_place(lazy):
    lazy.write_text(lazy.read_text() + "del model['anchor_generator']\n")
    run = load_run(lazy, ["MODEL.ANCHOR_GENERATOR.SIZES=[[8],[16],[32],[64],[128]]"])
    with pytest.raises(ConfigFileError, match=r"tiny.py has no model.anchor_generator.base_sizes"):
        run.build_model()


# ---- data of a LazyConfig's own


OWN_DATA = """
import json
from detectron2.structures import BoxMode

def own_data():
    return [
        {{
            "file_name": f"{folder}/train/{{i}}.png", "image_id": i, "height": 96, "width": 96,
            "annotations": [
                {{"bbox": [8, 8, 40, 40], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}}
            ],
        }}
        for i in range(2)
    ]

dataloader.train.dataset = L(own_data)()
"""


def test_a_data_set_that_is_no_list_of_names(lazy, tmp_path):
    lazy.write_text(lazy.read_text() + OWN_DATA.format(folder=tmp_path))
    run = load_run(lazy)
    assert run.settings.DATASETS.TRAIN == ("tiny_train",)
    assert len(DatasetCatalog.get("tiny_train")) == 2
    batch = next(iter(run.build_train_loader()))
    assert [x["instances"].gt_boxes.tensor.tolist() for x in batch] == [[[8, 8, 40, 40]]] * 2
    trainer, _ = trained(lazy, "train.max_iter=1", "TEST.VALIDATION_LOSS=False")
    assert trainer.iter == 1


OWN_MAPPER = """
class OwnMapper:
    def __init__(self, inner):
        self.inner = inner

    def __call__(self, record):
        return {{**self.inner(record), "own": True}}

dataloader.train.mapper = L(OwnMapper)(inner=dataloader.train.mapper)
"""


def test_a_mapper_of_ones_own(lazy):
    lazy.write_text(lazy.read_text() + OWN_MAPPER.replace("{{", "{").replace("}}", "}"))
    (first, _) = next(iter(load_run(lazy).build_train_loader()))
    assert first["own"] and len(first["instances"])


OWN_EVALUATOR = """
from detectron2.evaluation import DatasetEvaluator

class Counting(DatasetEvaluator):
    def __init__(self, dataset_name, output_dir):
        self.dataset_name, self.output_dir = dataset_name, output_dir

    def reset(self):
        self.images = 0

    def process(self, inputs, outputs):
        self.images += len(inputs)

    def evaluate(self):
        return {"count": {"images": self.images}}

dataloader.evaluator = L(Counting)(dataset_name="${..test.dataset.names}")
train.best = {"metric": "count/images"}
"""


def test_an_evaluator_of_ones_own(lazy, tmp_path):
    lazy.write_text(lazy.read_text() + OWN_EVALUATOR)
    evaluator = load_run(lazy).build_evaluator("lazy_test", tmp_path)
    assert (evaluator.dataset_name, evaluator.output_dir) == ("lazy_test", str(tmp_path))
    _, results = trained(lazy, "train.max_iter=2")
    assert results["count"] == {"images": 2} and results["validation"]
    assert (tmp_path / "output/model_best.pth").is_file()


def test_a_run_is_found_by_its_settings(lazy, tmp_path):
    run = load_run(lazy)
    copy = run.settings.clone()
    copy.MODEL.RETINANET.NUM_CLASSES = 4
    assert run_of(copy).build_model().num_classes == 4
    assert run.build_model().num_classes == 3
    assert load_run(run, ["SEED=3"]).settings.SEED == 3 and run.settings.SEED == 1
    twin = load_config(write_yaml_twin(tmp_path, steps=STEPS))
    assert isinstance(run_of(twin), YamlRun)


def test_the_config_of_a_runs_folder_is_no_model(lazy, tmp_path):
    trained(lazy, "train.max_iter=1")
    with pytest.raises(ConfigFileError, match="without its model: give the LazyConfig"):
        load_run(tmp_path / "output/config.yaml")
    saved = load_run(lazy)
    assert f"LAZY_CONFIG: {lazy}" in (tmp_path / "output/config.yaml").read_text()
    assert saved.text().count("FocalRetinaNetHead") > 0
