import pytest
from detectron2.data import DatasetCatalog

from retina_plugin.config.config_file import load_config
from retina_plugin.data.class_counts import count_classes, fill_class_counts


@pytest.fixture
def two_sets():
    def record(*classes):
        return {"annotations": [{"category_id": x} for x in classes]}

    crowd = {"annotations": [{"category_id": 0, "iscrowd": 1}]}
    sets = {"counted_a": [record(0, 2, 2), {}], "counted_b": [crowd, record(2)]}
    for name, records in sets.items():
        DatasetCatalog.register(name, lambda records=records: records)
    yield tuple(sets)
    for name in sets:
        DatasetCatalog.remove(name)


def config(names, *overrides):
    cfg = load_config("", ["MODEL.RETINANET.CLS_LOSS.NAME=ClassWeightedFocalLoss", *overrides])
    cfg.DATASETS.TRAIN = names
    cfg.MODEL.RETINANET.NUM_CLASSES = 3
    return cfg


def counts_of(cfg):
    return cfg.MODEL.RETINANET.CLS_LOSS.ClassWeightedFocalLoss.COUNTS


def test_objects_of_all_sets_without_crowds(two_sets):
    assert count_classes(two_sets, 3) == [1, 0, 3]


def test_the_config_gets_them(two_sets):
    cfg = config(two_sets)
    fill_class_counts(cfg)
    assert counts_of(cfg) == (1, 0, 3)


def test_where_the_loss_is_not_used_nothing_is_read():
    cfg = config(("no_such_set",))
    fill_class_counts(cfg, count=False)
    assert counts_of(cfg) == (1, 1, 1)


@pytest.mark.parametrize("key", ["WEIGHTS", "COUNTS"])
def test_what_the_user_gave_stays(key):
    cfg = config(("no_such_set",), f"MODEL.RETINANET.CLS_LOSS.ClassWeightedFocalLoss.{key}=(1,2,3)")
    fill_class_counts(cfg)
    assert counts_of(cfg) == ((1, 2, 3) if key == "COUNTS" else ())


def test_other_losses_need_none():
    cfg = config(("no_such_set",), "MODEL.RETINANET.CLS_LOSS.NAME=FocalLoss")
    fill_class_counts(cfg)
    assert counts_of(cfg) == ()
