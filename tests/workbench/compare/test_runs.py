import json

import pytest

from retina_plugin.config.config_file import ConfigKeyError, load_config
from retina_plugin.workbench.compare.contenders import Contender
from retina_plugin.workbench.compare.runs import RESULT, plan_runs

STEPS = "SOLVER: {MAX_ITER: 100, IMS_PER_BATCH: 4, STEPS: [60, 80], WARMUP_ITERS: 10}\n"


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(f"{STEPS}VERSION: 2\n")
    return file


def plan(tmp_path, *contenders, seeds=(1,), **options):
    return plan_runs(contenders, seeds=seeds, out=tmp_path / "out", **options)


def test_all_contenders_of_a_seed_come_before_the_next_seed(config, tmp_path):
    runs = plan(tmp_path, Contender("a", config), Contender("b", config), seeds=(1, 2))
    assert [(run.label, run.seed) for run in runs] == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert len({run.folder for run in runs}) == 4
    assert [run.overrides[-1] for run in runs] == ["SEED=1", "SEED=1", "SEED=2", "SEED=2"]


def test_the_schedule_is_scaled_to_the_first_ones_images(config, tmp_path):
    other = Contender("b", config, ("SOLVER.IMS_PER_BATCH=8", "INPUT.MIX.CLOSE_STEPS=20"))
    first, second = plan(tmp_path, Contender("a", config), other)
    assert first.images == second.images == 400
    assert load_config(config, first.overrides).SOLVER.MAX_ITER == 100
    cfg = load_config(config, second.overrides)
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS) == (50, (30, 40))
    assert (cfg.SOLVER.WARMUP_ITERS, cfg.INPUT.MIX.CLOSE_STEPS) == (5, 10)


def test_images_that_are_asked_for(config, tmp_path):
    (run,) = plan(tmp_path, Contender("a", config), images=40)
    assert run.images == 40 and load_config(config, run.overrides).SOLVER.MAX_ITER == 10


def test_own_overrides_win_over_shared_ones(config, tmp_path):
    contender = Contender("b", config, ("SOLVER.BASE_LR=0.5",))
    shared = ["SOLVER.BASE_LR=0.1", "SOLVER.MOMENTUM=0.8"]
    (run,) = plan(tmp_path, contender, shared=shared)
    cfg = load_config(config, run.overrides)
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MOMENTUM) == (0.5, 0.8)


def test_the_folder_changes_with_the_config_and_the_data_alone(config, tmp_path):
    data = tmp_path / "train.json"
    data.write_text("{}")
    contender = Contender("a", config, (f"DATASETS.COCO.TRAIN.JSON={data}",))

    def folder(*overrides):
        changed = Contender("a", config, (*contender.overrides, *overrides))
        return plan(tmp_path, changed)[0].folder

    before = folder()
    assert folder() == folder("OUTPUT_DIR=elsewhere") == before
    assert folder("SOLVER.BASE_LR=0.5") != before
    data.write_text('{"images": []}')
    assert folder() != before


def test_a_change_in_ones_own_code_is_another_run(config, tmp_path):
    file = tmp_path / "my_loss.py"
    file.write_text("FACTOR = 1\n")

    def folder():
        return plan(tmp_path, Contender("a", config), extensions=[str(file), "math"])[0].folder

    before = folder()
    assert folder() == before
    file.write_text("FACTOR = 2\n")
    assert folder() != before


def test_a_result_is_read_back(config, tmp_path):
    (run,) = plan(tmp_path, Contender("a", config))
    assert run.result() is None
    run.finish({"scores": {}})
    assert run.result() == {"scores": {}} == json.loads((run.folder / RESULT).read_text())


def test_a_wrong_key_is_said_before_anything_is_trained(config, tmp_path):
    with pytest.raises(ConfigKeyError, match=r"SOLVER\.BASE_LT"):
        plan(tmp_path, Contender("a", config), shared=["SOLVER.BASE_LT=1"])
