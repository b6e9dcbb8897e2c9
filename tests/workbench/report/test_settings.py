import yaml
from detectron2.config import get_cfg

from retina_plugin.config.defaults import add_retina_config
from retina_plugin.workbench.report.settings import (
    Setting,
    as_yaml,
    changed_settings,
    different_settings,
)


def config(*overrides):
    cfg = add_retina_config(get_cfg())
    cfg.MODEL.RETINANET.NUM_CLASSES = None
    cfg.merge_from_list(list(overrides))
    return yaml.safe_load(cfg.dump())


def test_defaults_are_not_listed():
    assert changed_settings(config()) == []


def test_what_was_set_with_its_default():
    changed = changed_settings(config("SOLVER.MAX_ITER", 7, "DATASETS.TEST", ("a",)))
    assert changed == [
        Setting("DATASETS.TEST", "[a]", "[]"),
        Setting("SOLVER.MAX_ITER", "7", "40000"),
    ]


def test_a_key_of_another_version():
    assert changed_settings({**config(), "OF_OLD": 1}) == [Setting("OF_OLD", "1", None)]


def test_two_runs():
    one, other = config("SEED", 1), config("SEED", 2)
    del other["VERSION"]
    assert different_settings(one, other) == [
        Setting("SEED", "1", "2"),
        Setting("VERSION", "2", None),
    ]
    assert different_settings(other, one)[1] == Setting("VERSION", "(not there)", "2")


def test_all_of_them_can_be_read_again():
    assert yaml.safe_load(as_yaml(config())) == config()
